package cdc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// inspectSQL is an inspection: several statements in one round trip. Each has a snapshot of its
// own, and the WAL end comes first. Nothing in it locks a table of the user's, because a VACUUM
// FULL of one old partition must not hold up confirmations. So it cannot use pg_publication_tables
// and pg_partition_tree, which open what they list.
func inspectSQL(cfg Config, version string) string {
	tables := make([]string, len(cfg.Tables))
	for i, t := range cfg.Tables {
		tables[i] = "(" + quoteLiteral(t.Schema) + ", " + quoteLiteral(t.Name) + ")"
	}
	schemas, inSchema, list, filtered := "NULL", "false", "NULL", "false"
	if !strings.HasPrefix(version, "14.") {
		schemas = "(SELECT s.oid::text || '/' || s.xmin::text FROM pg_publication_namespace s " +
			"WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace)"
		inSchema = "EXISTS (SELECT FROM pg_publication_namespace s " +
			"WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace)"
		list = "(SELECT jsonb_agg(a.attname) FROM pg_publication_rel r " +
			"JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[]) " +
			"WHERE r.prpubid = p.oid AND r.prrelid = m.top)"
		filtered = "EXISTS (SELECT FROM pg_publication_rel r " +
			"WHERE r.prpubid = p.oid AND r.prrelid = m.top AND r.prqual IS NOT NULL)"
	}
	return strings.NewReplacer(
		"$slot", quoteLiteral(cfg.Slot), "$publication", quoteLiteral(cfg.Publication),
		"$tables", strings.Join(tables, ", "),
		"$schemas", schemas, "$in_schema", inSchema, "$list", list, "$filtered", filtered,
	).Replace(serverSQL + publicationSQL + tablesSQL + holderSQL + walsenderSQL + hazardsSQL)
}

const serverSQL = `
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END,
  CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
  (SELECT system_identifier FROM pg_control_system());
SELECT to_jsonb(s) || jsonb_build_object('same_database', s.database = current_database())
  FROM pg_replication_slots s WHERE s.slot_name = $slot;`

// publicationSQL reads the publication and how it publishes our tables. A table is published by its
// own name, by its schema, with all tables, or with a table that it is a partition of. With
// publish_via_partition_root its rows are sent under the name of its topmost ancestor that is
// published.
const publicationSQL = `
WITH RECURSIVE up AS (
  SELECT c.oid AS root, c.oid, 0 AS depth FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN ($tables)
  UNION ALL SELECT u.root, i.inhparent, u.depth + 1
    FROM up u JOIN pg_class c ON c.oid = u.oid AND c.relispartition JOIN pg_inherits i ON i.inhrelid = u.oid
), members AS (
  SELECT p.oid AS publication, u.root,
      CASE WHEN p.pubviaroot THEN (array_agg(u.oid ORDER BY u.depth DESC))[1] ELSE u.root END AS top,
      coalesce(string_agg(r.oid::text || '/' || r.xmin::text, ' ' ORDER BY u.depth)
        FILTER (WHERE u.depth > 0), '') AS ancestors
    FROM pg_publication p CROSS JOIN up u JOIN pg_class c ON c.oid = u.oid
    LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = u.oid
    WHERE p.pubname = $publication AND (p.puballtables OR r.oid IS NOT NULL OR $in_schema)
    GROUP BY p.oid, p.pubviaroot, u.root
)
SELECT jsonb_build_object('identity', p.oid::text || '/' || p.xmin::text,
  'insert', p.pubinsert, 'delete', p.pubdelete, 'via_root', p.pubviaroot,
  'generated', coalesce(to_jsonb(p)->>'pubgencols', ''),
  'strangers', (SELECT coalesce(jsonb_agg(format('%I.%I', n.nspname, c.relname) ORDER BY n.nspname, c.relname), '[]')
    FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE r.prpubid = p.oid AND r.prrelid NOT IN (SELECT u.oid FROM up u)
      AND NOT EXISTS (SELECT FROM pg_partition_ancestors(r.prrelid) a JOIN up u ON u.root = a.relid)),
  'tables', (SELECT coalesce(jsonb_agg(jsonb_build_object('schemaname', n.nspname, 'tablename', c.relname,
      'root', CASE WHEN m.top <> m.root THEN (SELECT format('%I.%I', tn.nspname, t.relname)
        FROM pg_class t JOIN pg_namespace tn ON tn.oid = t.relnamespace WHERE t.oid = m.top) ELSE '' END,
      'attnames', $list, 'filtered', $filtered, 'ancestors', m.ancestors, 'identity', coalesce(
      (SELECT r.oid::text || '/' || r.xmin::text FROM pg_publication_rel r
        WHERE r.prpubid = p.oid AND r.prrelid = c.oid),
      $schemas, c.oid::text))), '[]')
    FROM members m JOIN pg_class c ON c.oid = m.root JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE m.publication = p.oid))
  FROM pg_publication p WHERE p.pubname = $publication;`

// downSQL walks from our tables to their partitions and to their children by inheritance.
const downSQL = `
WITH RECURSIVE wanted AS (
  SELECT c.oid, c.relname, c.relkind, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (n.nspname, c.relname) IN ($tables)
), down AS (
  SELECT oid AS root, oid, false AS inherits, false AS detaching FROM wanted
  UNION SELECT d.root, i.inhrelid, d.inherits OR NOT c.relispartition, i.inhdetachpending
    FROM down d JOIN pg_inherits i ON i.inhparent = d.oid JOIN pg_class c ON c.oid = i.inhrelid
), named AS (
  SELECT d.*, c.relkind, c.relpersistence, c.relam, n.nspname, c.relname, format('%I.%I', n.nspname, c.relname) AS name
    FROM down d JOIN pg_class c ON c.oid = d.oid JOIN pg_namespace n ON n.oid = c.relnamespace
)`

const tablesSQL = downSQL + `
SELECT jsonb_build_object('schema', w.nspname, 'name', w.relname, 'oid', w.oid::bigint, 'kind', w.relkind,
  'unlogged', (SELECT coalesce(min(d.name), '') FROM named d
    WHERE d.root = w.oid AND NOT d.inherits AND (d.relpersistence <> 'p' OR d.relkind = 'f')),
  'child', (SELECT coalesce(min(d.name), '') FROM named d
    WHERE d.root = w.oid AND d.inherits AND (d.nspname, d.relname) NOT IN ($tables)),
  'children', (SELECT count(*) FROM named d
    WHERE d.root = w.oid AND d.inherits AND (d.nspname, d.relname) NOT IN ($tables)),
  'columns', (SELECT coalesce(jsonb_agg(jsonb_build_object(
      'name', a.attname, 'type', a.atttypid::bigint, 'generated', a.attgenerated,
      'base', b.oid::bigint, 'base_name', b.typname, 'type_name', format_type(a.atttypid, NULL))), '[]')
    FROM pg_attribute a CROSS JOIN LATERAL (
      WITH RECURSIVE base AS (
        SELECT y.oid, y.typname, y.typtype, y.typbasetype FROM pg_type y WHERE y.oid = a.atttypid
        UNION ALL SELECT y.oid, y.typname, y.typtype, y.typbasetype
          FROM base b JOIN pg_type y ON b.typtype = 'd' AND y.oid = b.typbasetype
      ) SELECT oid, typname FROM base WHERE typtype <> 'd') b
    WHERE a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped))
  FROM wanted w;`

const holderSQL = `
SELECT holder FROM (
  SELECT 'pid ' || pid || ' (' || coalesce(usename, '?') || ', '
      || coalesce(nullif(application_name, ''), '?') || ') in a transaction'
      || coalesce(' since ' || to_char(xact_start, 'YYYY-MM-DD HH24:MI:SS TZ'), '') AS holder, age(backend_xid) AS age
    FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
  UNION ALL SELECT 'prepared transaction ' || quote_literal(gid) || ' of ' || owner || ' since '
      || to_char(prepared, 'YYYY-MM-DD HH24:MI:SS TZ'), age(transaction) FROM pg_prepared_xacts
) h ORDER BY age DESC LIMIT 1;`

// hazardsSQL comes last: it may fail because the role lacks a right on a catalog. The answers
// before it are good all the same.
const hazardsSQL = downSQL + `
SELECT jsonb_build_object('schema', w.nspname, 'name', w.relname, 'partitioned', w.relkind = 'p',
  'rules', (SELECT coalesce(jsonb_agg(
      jsonb_build_object('name', r.rulename, 'table', d.name, 'always', r.ev_qual = '<>') ORDER BY r.rulename), '[]')
    FROM named d JOIN pg_rewrite r ON r.ev_class = d.oid
    WHERE d.root = w.oid AND d.oid = w.oid AND r.ev_type = '3' AND r.is_instead
      AND r.ev_enabled IN ('O', 'A') AND NOT EXISTS (
        SELECT FROM pg_depend e
        WHERE e.classid = 'pg_rewrite'::regclass AND e.objid = r.oid AND e.refclassid = 'pg_class'::regclass
        AND e.refobjid <> d.oid AND e.refobjid IN (SELECT oid FROM wanted))),
  'dropping', (SELECT coalesce(min(t.tgname), '') FROM named d CROSS JOIN LATERAL (
      SELECT t.tgname, t.tgfoid, t.tgtype FROM pg_trigger t
      WHERE t.tgrelid = d.oid AND t.tgparentid = 0 AND t.tgenabled <> 'D' AND t.tgtype & 7 = 7 OFFSET 0) t
      JOIN pg_proc f ON f.oid = t.tgfoid JOIN pg_language l ON l.oid = f.prolang
    WHERE d.root = w.oid
      AND NOT EXISTS (SELECT FROM named k WHERE k.root = w.oid AND k.inherits AND (k.nspname, k.relname) IN ($tables))
      AND CASE l.lanname
        WHEN 'plpgsql' THEN regexp_replace(regexp_replace(f.prosrc, '--[^\n]*|/\*.*?\*/', ' ', 'g'),
          CASE WHEN t.tgtype & 8 = 8 THEN '\mreturn\s+old\s*;' ELSE '^$' END, '', 'gi')
          ~* '\mreturn\M(?!\s+new\s*;)|\mnew\s*:?=\s*null\M'
        WHEN 'internal' THEN false
        WHEN 'c' THEN false
        ELSE f.prosrc ~* 'skip|\m(null|none)\M' END),
  'guarded', EXISTS (SELECT FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid
    WHERE t.tgrelid = w.oid AND t.tgenabled IN ('O', 'A') AND t.tgtype & 19 = 19 AND t.tgattr::text = ''
      AND f.prosrc ~* '\mraise\s+(exception|''|sqlstate)'),
  'key', (SELECT CASE WHEN bool_or(k.partexprs IS NOT NULL) THEN '[]'
      ELSE coalesce(jsonb_agg(DISTINCT a.attname), '[]') END
    FROM named d JOIN pg_partitioned_table k ON k.partrelid = d.oid
    LEFT JOIN pg_attribute a ON a.attrelid = k.partrelid AND a.attnum = ANY (k.partattrs::int2[])
    WHERE d.root = w.oid),
  'mixed', EXISTS (SELECT FROM named d JOIN pg_class c ON c.oid = d.oid
    WHERE d.root = w.oid AND c.relreplident <> 'd'),
  'partition', (SELECT c.relispartition FROM pg_class c WHERE c.oid = w.oid),
  'replica_identity', (SELECT coalesce(jsonb_agg(a.attname), '[]')
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.oid = w.oid AND (c.relreplident = 'f' OR EXISTS (
      SELECT FROM pg_index x WHERE x.indrelid = c.oid AND a.attnum = ANY (x.indkey::int2[])
      AND CASE c.relreplident WHEN 'd' THEN x.indisprimary WHEN 'i' THEN x.indisreplident ELSE false END))),
  'detaching', (SELECT coalesce(min(d.name), '') FROM named d WHERE d.root = w.oid AND d.detaching),
  'access_method', (SELECT coalesce(min(m.amname), '') FROM named d JOIN pg_am m ON m.oid = d.relam
    WHERE d.root = w.oid AND m.amname <> 'heap'),
  'subscription', (SELECT coalesce(min(s.subname), '') FROM named d JOIN pg_subscription_rel r ON r.srrelid = d.oid
    JOIN pg_subscription s ON s.oid = r.srsubid WHERE d.root = w.oid AND s.subenabled))
  FROM wanted w;`

// essentials is how many queries of inspectSQL must succeed: all but hazardsSQL.
const essentials = 6

// onlyHazards reports whether all queries succeeded but the last one, which lacks a right.
func onlyHazards(results []*pgconn.Result, err error) bool {
	var refused *pgconn.PgError
	return len(results) == essentials && errors.As(err, &refused) && refused.Code == "42501"
}

// lockedBy names the sessions that lock a catalog which an inspection waited for, as a VACUUM FULL
// does; empty = it did not wait for a lock. It reads only shared memory: the catalogs that could
// name the sessions may themselves be locked.
func lockedBy(ctx context.Context, pg *pgconn.PgConn, err error) string {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "55P03" {
		return ""
	}
	results, err := pg.Exec(ctx, `SELECT string_agg(DISTINCT 'pid ' || pid, ', ') FROM pg_lock_status()
		WHERE granted AND mode = 'AccessExclusiveLock' AND locktype = 'relation' AND relation < 16384
			AND pid <> pg_backend_pid()`).ReadAll()
	if err != nil || len(results) != 1 || len(results[0].Rows) != 1 || results[0].Rows[0][0] == nil {
		return " (a catalog of Postgres is locked)"
	}
	return fmt.Sprintf(" (a catalog of Postgres is locked, by %s)", results[0].Rows[0][0])
}
