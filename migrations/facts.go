package migrations

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// facts are what the catalogs say, before they are checked.
type facts struct {
	version     int // server_version_num
	walLevel    string
	standby     bool
	role        string
	replication bool // The role may use replication slots.
	database    string
	dbCreate    bool // The role may create publications, as far as the database is concerned.
	tables      []tableFacts
	publication publicationFacts
}

type tableFacts struct {
	Table
	schemaThere  bool
	schemaCreate bool
	there        bool
	kind         string // relkind
	persistence  string // relpersistence
	owner        string
	ours         bool // The role is the owner, or a member of it.
	superuser    bool // The owner is one.
	columns      map[string]columnFacts
	member       bool // Of the publication, in whatever way.
	rowFilter    bool
	published    []string // The column list; empty means all.
}

type columnFacts struct {
	typeName  string
	base      string // The type below, if it is a domain; else the same.
	category  string // typcategory
	notNull   bool
	generated string // attgenerated: s = stored, v = virtual, empty = it is none.
}

type publicationFacts struct {
	there     bool
	owner     string
	ours      bool
	allTables bool
	insert    bool
	viaRoot   bool
	generated string // s: stored generated columns are published. Postgres 18 and later.
}

func readFacts(ctx context.Context, q pgx.Tx, o Options) (facts, error) {
	var f facts
	err := q.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, current_setting('wal_level'), pg_is_in_recovery(),
			current_user, r.rolsuper OR r.rolreplication OR EXISTS (
				-- Amazon's managed Postgres grants replication through a role instead of the attribute.
				SELECT FROM pg_roles m WHERE m.rolname = 'rds_replication' AND pg_has_role(m.oid, 'USAGE')),
			current_database(), has_database_privilege(current_database(), 'CREATE')
		FROM pg_roles r WHERE r.rolname = current_user`).
		Scan(&f.version, &f.walLevel, &f.standby, &f.role, &f.replication, &f.database, &f.dbCreate)
	if err != nil {
		return f, fmt.Errorf("read server settings: %w", err)
	}
	if err := f.readPublication(ctx, q, o.Publication); err != nil {
		return f, err
	}
	for _, table := range o.Tables {
		t := tableFacts{Table: table}
		if err := t.read(ctx, q, f.version, o.Publication); err != nil {
			return f, fmt.Errorf("read catalog of table %s: %w", table, err)
		}
		f.tables = append(f.tables, t)
	}
	return f, nil
}

func (f *facts) readPublication(ctx context.Context, q pgx.Tx, name string) error {
	p := &f.publication
	err := q.QueryRow(ctx, `
		SELECT pg_get_userbyid(pubowner), pg_has_role(pubowner, 'USAGE'), puballtables, pubinsert, pubviaroot,
			coalesce(to_jsonb(p)->>'pubgencols', '')
		FROM pg_publication p WHERE pubname = $1`, name).
		Scan(&p.owner, &p.ours, &p.allTables, &p.insert, &p.viaRoot, &p.generated)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read catalog of publication %q: %w", name, err)
	}
	p.there = true
	return nil
}

func (t *tableFacts) read(ctx context.Context, q pgx.Tx, version int, publication string) error {
	err := q.QueryRow(ctx, `SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1`, t.Schema).
		Scan(&t.schemaCreate)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	t.schemaThere = true
	var oid uint32
	err = q.QueryRow(ctx, `
		SELECT c.oid, c.relkind::text, c.relpersistence::text, pg_get_userbyid(c.relowner),
			pg_has_role(c.relowner, 'USAGE'), (SELECT rolsuper FROM pg_roles WHERE oid = c.relowner)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2`, t.Schema, t.Name).
		Scan(&oid, &t.kind, &t.persistence, &t.owner, &t.ours, &t.superuser)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	t.there = true
	if err := t.readColumns(ctx, q, oid); err != nil {
		return err
	}
	return t.readMembership(ctx, q, oid, version, publication)
}

func (t *tableFacts) readColumns(ctx context.Context, q pgx.Tx, oid uint32) error {
	rows, err := q.Query(ctx, `
		SELECT a.attname, format_type(a.atttypid, NULL), b.typname, y.typcategory::text,
			a.attnotnull, a.attgenerated::text
		FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid CROSS JOIN LATERAL (
			WITH RECURSIVE base AS (
				SELECT y.typname, y.typtype, y.typbasetype
				UNION ALL SELECT t.typname, t.typtype, t.typbasetype
					FROM base b JOIN pg_type t ON b.typtype = 'd' AND t.oid = b.typbasetype
			) SELECT typname FROM base WHERE typtype <> 'd') b
		WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped`, oid)
	if err != nil {
		return err
	}
	t.columns = map[string]columnFacts{}
	var name string
	var c columnFacts
	row := []any{&name, &c.typeName, &c.base, &c.category, &c.notNull, &c.generated}
	_, err = pgx.ForEachRow(rows, row, func() error {
		t.columns[name] = c
		return nil
	})
	return err
}

func (t *tableFacts) readMembership(ctx context.Context, q pgx.Tx, oid uint32, version int, publication string) error {
	// Row filters and column lists exist from Postgres 15 on.
	filter, list := "r.prqual IS NOT NULL", `ARRAY(SELECT a.attname::text FROM pg_attribute a
		WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[]))`
	if version < 150000 {
		filter, list = "false", "ARRAY[]::text[]"
	}
	err := q.QueryRow(ctx, `
		SELECT `+filter+`, `+list+`
		FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1 AND r.prrelid = $2`,
		publication, oid).Scan(&t.rowFilter, &t.published)
	if err == nil {
		t.member = true
		return nil
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	// Not by its own name, so perhaps through FOR ALL TABLES, its schema or the table it is a
	// partition of. The view pg_publication_tables knows, but opens each table, and would wait for
	// whoever has locked one.
	inSchema := "OR EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = " +
		"c.relnamespace)"
	if version < 150000 {
		inSchema = ""
	}
	return q.QueryRow(ctx, `
		WITH RECURSIVE up AS (
			SELECT $2::oid AS oid
			UNION ALL SELECT i.inhparent
				FROM up u JOIN pg_class c ON c.oid = u.oid AND c.relispartition JOIN pg_inherits i ON i.inhrelid = u.oid
		)
		SELECT EXISTS (SELECT FROM pg_publication p CROSS JOIN up u JOIN pg_class c ON c.oid = u.oid
			WHERE p.pubname = $1 AND (p.puballtables
			OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = u.oid) `+inSchema+`))`,
		publication, oid).Scan(&t.member)
}
