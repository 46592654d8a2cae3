package cdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
)

// inspectTimeout bounds one inspection: its connection may fall silent.
const inspectTimeout = 15 * time.Second

// View is what one inspection of the database found.
type View struct {
	// WALEnd was read before everything else. What was committed before it was committed under the
	// publication and the tables of this view, if the view before showed the same.
	WALEnd      LSN
	System      string           // system identifier of the cluster
	Timeline    uint32           // the server's current timeline; zero = it is a standby
	Slot        *SlotView        // nil = there is no such slot
	Publication *PublicationView // nil = there is none
	Tables      []TableView      // those that exist
	Holder      string           // the transaction that is open the longest; empty = none
	Walsender   *Walsender       // the process that reads the slot; nil = none does

	// Hazards is what may come between an INSERT and its event. Unseen says why they could not be
	// inspected; empty = they were.
	Hazards []TableHazards
	Unseen  string
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
	TwoPhase       bool   `json:"two_phase"`
	SameDatabase   bool   `json:"same_database"`
	Database       string `json:"database"`
}

// Confirmed returns the slot's confirmed_flush_lsn; zero = none.
func (s *SlotView) Confirmed() LSN { return parseLSN(s.ConfirmedFlush) }

// Restart returns the slot's restart_lsn: WAL from there on is retained.
func (s *SlotView) Restart() LSN { return parseLSN(s.RestartLSN) }

// PublicationView is the publication and how it publishes our tables.
type PublicationView struct {
	Identity  string                 `json:"identity"` // changes when the publication is altered
	Insert    bool                   `json:"insert"`
	Delete    bool                   `json:"delete"`
	ViaRoot   bool                   `json:"via_root"`
	Generated string                 `json:"generated"` // 18 and later: s = with stored columns
	Tables    []PublicationTableView `json:"tables"`
	// Strangers are the tables that it names and that are no outbox tables of ours, nor partitions
	// or ancestors of one, quoted where SQL needs it: their rows are skipped.
	Strangers []string `json:"strangers"`
}

// PublicationTableView is how the publication publishes one of our tables.
type PublicationTableView struct {
	Schema    string   `json:"schemaname"`
	Name      string   `json:"tablename"`
	Root      string   `json:"root"`      // an ancestor whose name its rows are sent under; or empty
	Columns   []string `json:"attnames"`  // its column list, 15 and later; nil = all columns
	Filtered  bool     `json:"filtered"`  // it has a row filter, 15 and later
	Identity  string   `json:"identity"`  // changes when the table leaves and comes back
	Ancestors string   `json:"ancestors"` // identities of its ancestors in the publication
}

// TableView is an outbox table and its columns.
type TableView struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	OID    uint32 `json:"oid"`
	Kind   string `json:"kind"` // relkind: r = table, p = partitioned
	// Unlogged names the table or a partition of it if the rows are not in the WAL, because it is
	// unlogged or a foreign table. Empty = none.
	Unlogged string `json:"unlogged"`
	// Child is a descendant by inheritance that is no outbox table of ours: a SELECT from the table
	// shows its rows, but they are sent under its own name, or not at all. Empty = none. Children
	// counts them.
	Child    string       `json:"child"`
	Children int          `json:"children"`
	Columns  []ColumnView `json:"columns"`
}

// ColumnView is a column of an outbox table.
type ColumnView struct {
	Name      string `json:"name"`
	Type      uint32 `json:"type"`      // the OID of its type
	Base      uint32 `json:"base"`      // the OID of the type below, if it is a domain
	TypeName  string `json:"type_name"` // as SQL spells it
	BaseName  string `json:"base_name"` // of Base, without its schema
	Generated string `json:"generated"` // attgenerated: s = stored, v = virtual, empty = no
}

// Holds returns the OID of the type whose values the column holds: for a domain, the type below.
func (c ColumnView) Holds() uint32 {
	if c.Base != 0 {
		return c.Base
	}
	return c.Type
}

// Inspect inspects the slot, the publication and the tables over a connection of its own. It closes
// the connection at once: an idle one would hold up a smart shutdown of the server.
func Inspect(ctx context.Context, cfg Config) (View, error) {
	var once Inspector
	return once.Inspect(ctx, cfg, false)
}

// maxConnectionAge is how long an Inspector uses one connection. To keep it saves logins, which
// cost both sides, with SCRAM more than all else that an idle relay does. But an idle connection
// holds up a smart shutdown, and is not told of it.
const maxConnectionAge = 10 * time.Second

// Inspector inspects again and again. The zero value has no connection. One goroutine uses it at a
// time.
type Inspector struct {
	pg    *pgconn.PgConn
	since time.Time
}

// Inspect is the function of that name. With keep it leaves the connection open for the next
// inspection, which comes soon. After an error there is none.
func (i *Inspector) Inspect(ctx context.Context, cfg Config, keep bool) (View, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	kept := i.pg != nil
	view, err := i.inspect(ctx, cfg)
	if err != nil && kept && ctx.Err() == nil {
		// The server may have ended the connection long ago. A new one gets its present answer.
		i.Close()
		view, err = i.inspect(ctx, cfg)
	}
	if err != nil || !keep || time.Since(i.since) > maxConnectionAge {
		i.Close()
	}
	if err == nil && view.Timeline == 0 {
		cfg.Hosts.MarkUnfit()
	}
	return view, err
}

func (i *Inspector) inspect(ctx context.Context, cfg Config) (View, error) {
	if i.pg == nil {
		pg, err := cfg.connect(ctx)
		if err != nil {
			return View{}, err
		}
		i.pg, i.since = pg, time.Now()
	}
	results, err := i.pg.Exec(ctx, inspectSQL(cfg, i.pg.ParameterStatus("server_version"))).ReadAll()
	if err != nil && !onlyHazards(results, err) {
		// Transient, whatever the server says: an inspection can be repeated, and nothing is
		// confirmed until one succeeds.
		return View{}, &brokenError{"inspect the slot and the publication" + lockedBy(ctx, i.pg, err), err}
	}
	view, parseErr := parseView(results)
	if parseErr == nil && err != nil {
		view.Unseen = err.Error()
	}
	return view, parseErr
}

// Open reports whether there is a connection.
func (i *Inspector) Open() bool { return i.pg != nil }

// Close ends the connection, if there is one.
func (i *Inspector) Close() {
	if i.pg == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	// The caller has the answers, or gets an error anyway.
	_ = i.pg.Close(ctx)
	i.pg = nil
}

func parseView(results []*pgconn.Result) (View, error) {
	var v View
	if len(results) < essentials || len(results[0].Rows) != 1 {
		return v, fmt.Errorf("inspect the slot and the publication: %d answers to %d queries", len(results), essentials)
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
	for _, row := range results[4].Rows {
		v.Holder = string(row[0])
	}
	var errs [5]error
	v.Slot, errs[0] = parseRow[SlotView](results[1], "pg_replication_slots")
	v.Publication, errs[1] = parseRow[PublicationView](results[2], "pg_publication")
	v.Tables, errs[2] = parseRows[TableView](results[3], "pg_class")
	v.Walsender, errs[3] = parseRow[Walsender](results[5], "pg_stat_activity")
	if len(results) > essentials {
		v.Hazards, errs[4] = parseRows[TableHazards](results[essentials], "rules and triggers")
	}
	return v, errors.Join(errs[:]...)
}

// parseRows reads the rows of a query, each of which is one JSON object.
func parseRows[T any](result *pgconn.Result, what string) ([]T, error) {
	var all []T
	for _, row := range result.Rows {
		var one T
		if err := json.Unmarshal(row[0], &one); err != nil {
			return nil, fmt.Errorf("read %s: %w", what, err)
		}
		all = append(all, one)
	}
	return all, nil
}

// parseRow reads the row of a query that has one, or none.
func parseRow[T any](result *pgconn.Result, what string) (*T, error) {
	all, err := parseRows[T](result, what)
	if len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

// parseLSN reads an LSN that Postgres printed; NULL is zero.
func parseLSN(s string) LSN {
	lsn, err := pglogrepl.ParseLSN(s)
	if err != nil {
		return 0
	}
	return lsn
}
