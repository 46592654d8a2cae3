package cdc

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
)

// inspectTimeout bounds one look: a connection may fall silent in the middle of it.
const inspectTimeout = 15 * time.Second

// View is what one look at the database found.
type View struct {
	// WALEnd was read before everything else: all that was committed before it was committed under the publication
	// and the tables that the view shows, if the view before showed the same.
	WALEnd      LSN
	System      string           // system identifier of the cluster
	Timeline    uint32           // the server's current timeline; zero = it is a standby
	Slot        *SlotView        // nil = there is no such slot
	Publication *PublicationView // nil = there is none
	Tables      []TableView      // those that exist
	Holder      string           // the session or transaction that is open the longest; empty = none
}

// SlotView is a row of pg_replication_slots.
type SlotView struct {
	Plugin         string `json:"plugin"`
	Type           string `json:"slot_type"`
	Active         bool   `json:"active"`
	ActivePID      int    `json:"active_pid"`
	RestartLSN     string `json:"restart_lsn"`
	ConfirmedFlush string `json:"confirmed_flush_lsn"`
	WALStatus      string `json:"wal_status"`
	SafeWALSize    *int64 `json:"safe_wal_size"`
	Invalidation   string `json:"invalidation_reason"` // 17 and later
	Conflicting    bool   `json:"conflicting"`         // 16 and later
	SameDatabase   bool   `json:"same_database"`
	Database       string `json:"database"`
}

// Confirmed returns the slot's confirmed_flush_lsn; zero = none.
func (s *SlotView) Confirmed() LSN { return parseLSN(s.ConfirmedFlush) }

// Restart returns the slot's restart_lsn: WAL from there on is retained.
func (s *SlotView) Restart() LSN { return parseLSN(s.RestartLSN) }

// PublicationView is the publication and what it says of our tables.
type PublicationView struct {
	Identity  string                 `json:"identity"` // changes whenever somebody alters it
	AllTables bool                   `json:"all_tables"`
	Insert    bool                   `json:"insert"`
	ViaRoot   bool                   `json:"via_root"`
	Tables    []PublicationTableView `json:"tables"`
}

// PublicationTableView is a row of pg_publication_tables.
type PublicationTableView struct {
	Schema    string   `json:"schemaname"`
	Name      string   `json:"tablename"`
	Columns   []string `json:"attnames"`  // 15 and later
	RowFilter *string  `json:"rowfilter"` // 15 and later
	Identity  string   `json:"identity"`  // changes when the table leaves and comes back
}

// TableView is an outbox table and its columns.
type TableView struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	OID    uint32 `json:"oid"`
	Kind   string `json:"kind"` // relkind: r = table, p = partitioned
	// Unlogged is it itself, or one of its partitions, whose rows are not in the WAL: an unlogged or a foreign table. Empty = none.
	Unlogged string       `json:"unlogged"`
	Columns  []ColumnView `json:"columns"`
}

// ColumnView is a column of an outbox table.
type ColumnView struct {
	Name string `json:"name"`
	Type uint32 `json:"type"` // the OID of its type
}

// Inspect looks at the slot, the publication and the tables over a connection of its own, which is closed again at once:
// an idle one would hold up a smart shutdown of the server.
func Inspect(ctx context.Context, cfg Config) (View, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	pg, err := pgconn.ConnectConfig(ctx, cfg.sql())
	if err != nil {
		return View{}, cfg.connectError(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		// The answers are there, or an error is on its way to the caller.
		_ = pg.Close(ctx)
	}()
	results, err := pg.Exec(ctx, inspectSQL(cfg, pg.ParameterStatus("server_version"))).ReadAll()
	if err != nil {
		// Whatever the server says: a look can be repeated, and until it succeeds nothing is confirmed.
		return View{}, &brokenError{"look at the slot and the publication", err}
	}
	return parseView(results)
}

// inspectSQL asks everything in one round trip. Each statement has a snapshot of its own; the WAL end comes first.
func inspectSQL(cfg Config, version string) string {
	tables := make([]string, len(cfg.Tables))
	for i, t := range cfg.Tables {
		tables[i] = "(" + quoteLiteral(t.Schema) + ", " + quoteLiteral(t.Name) + ")"
	}
	schemas := "NULL"
	if !strings.HasPrefix(version, "14.") {
		schemas = "(SELECT s.oid::text || '/' || s.xmin::text FROM pg_publication_namespace s " +
			"WHERE s.pnpubid = p.oid AND s.pnnspid = n.oid)"
	}
	return strings.NewReplacer(
		"$slot", quoteLiteral(cfg.Slot), "$publication", quoteLiteral(cfg.Publication),
		"$tables", strings.Join(tables, ", "), "$schemas", schemas,
	).Replace(`
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END,
  CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
  (SELECT system_identifier FROM pg_control_system());
SELECT to_jsonb(s) || jsonb_build_object('same_database', s.database = current_database())
  FROM pg_replication_slots s WHERE s.slot_name = $slot;
SELECT jsonb_build_object('identity', p.oid::text || '/' || p.xmin::text, 'all_tables', p.puballtables,
  'insert', p.pubinsert, 'via_root', p.pubviaroot,
  'tables', (SELECT coalesce(jsonb_agg(to_jsonb(t) || jsonb_build_object('identity', coalesce(
      (SELECT r.oid::text || '/' || r.xmin::text FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid),
      $schemas, c.oid::text))), '[]')
    FROM pg_publication_tables t
    JOIN pg_namespace n ON n.nspname = t.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
    WHERE t.pubname = p.pubname AND (t.schemaname, t.tablename) IN ($tables)))
  FROM pg_publication p WHERE p.pubname = $publication;
SELECT jsonb_build_object('schema', n.nspname, 'name', c.relname, 'oid', c.oid::bigint, 'kind', c.relkind,
  'unlogged', (SELECT coalesce(min(l.oid::regclass::text), '') FROM pg_class l
    WHERE (l.oid = c.oid OR l.oid IN (SELECT relid FROM pg_partition_tree(c.oid))) AND (l.relpersistence <> 'p' OR l.relkind = 'f')),
  'columns',
  (SELECT coalesce(jsonb_agg(jsonb_build_object('name', a.attname, 'type', a.atttypid::bigint)), '[]') FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN ($tables);
SELECT holder FROM (
  SELECT 'pid ' || pid || ' (' || coalesce(usename, '?') || ', ' || coalesce(nullif(application_name, ''), '?') || ') in a transaction'
      || coalesce(' since ' || to_char(xact_start, 'YYYY-MM-DD HH24:MI:SS TZ'), '') AS holder, age(backend_xid) AS age
    FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
  UNION ALL SELECT 'prepared transaction ' || quote_literal(gid) || ' of ' || owner || ' since '
      || to_char(prepared, 'YYYY-MM-DD HH24:MI:SS TZ'), age(transaction) FROM pg_prepared_xacts
) h ORDER BY age DESC LIMIT 1;
`)
}

func parseView(results []*pgconn.Result) (View, error) {
	var v View
	if len(results) != 5 || len(results[0].Rows) != 1 {
		return v, fmt.Errorf("look at the slot and the publication: %d answers to 5 questions", len(results))
	}
	server := results[0].Rows[0]
	v.WALEnd, v.System = parseLSN(string(server[0])), string(server[2])
	if server[1] != nil {
		timeline, err := strconv.ParseUint(string(server[1]), 16, 32)
		if err != nil {
			return v, fmt.Errorf("read timeline: %w", err)
		}
		v.Timeline = uint32(timeline)
	}
	for _, row := range results[1].Rows {
		v.Slot = &SlotView{}
		if err := json.Unmarshal(row[0], v.Slot); err != nil {
			return v, fmt.Errorf("read pg_replication_slots: %w", err)
		}
	}
	for _, row := range results[2].Rows {
		v.Publication = &PublicationView{}
		if err := json.Unmarshal(row[0], v.Publication); err != nil {
			return v, fmt.Errorf("read pg_publication: %w", err)
		}
	}
	for _, row := range results[3].Rows {
		var t TableView
		if err := json.Unmarshal(row[0], &t); err != nil {
			return v, fmt.Errorf("read pg_class: %w", err)
		}
		v.Tables = append(v.Tables, t)
	}
	for _, row := range results[4].Rows {
		v.Holder = string(row[0])
	}
	return v, nil
}

// parseLSN reads an LSN that Postgres printed; NULL is zero.
func parseLSN(s string) LSN {
	lsn, err := pglogrepl.ParseLSN(s)
	if err != nil {
		return 0
	}
	return lsn
}
