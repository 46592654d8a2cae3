package cdc

import (
	"fmt"
	"slices"
	"strings"
)

// TableHazards is what may come between an INSERT into an outbox table and its event, or make an
// event of what no service inserted.
type TableHazards struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`

	// What may keep a row out of the stream. Empty = none.
	Rules        []HazardRule `json:"rules"`         // ON INSERT DO INSTEAD
	Dropping     string       `json:"dropping"`      // a BEFORE INSERT trigger that may return NULL
	Detaching    string       `json:"detaching"`     // a partition that is detached concurrently
	AccessMethod string       `json:"access_method"` // an access method that is not heap

	// What may make an event of a row that moves to another partition.
	Partitioned bool     `json:"partitioned"`
	Partition   bool     `json:"partition"`        // it is itself a partition
	Guarded     bool     `json:"guarded"`          // a BEFORE UPDATE trigger may refuse the move
	Key         []string `json:"key"`              // partition keys of all levels; none = expressions
	Identity    []string `json:"replica_identity"` // its columns
	Mixed       bool     `json:"mixed"`            // at some level it is not the primary key

	// Subscription writes into the table. Empty = none.
	Subscription string `json:"subscription"`
}

// HazardRule is a rule that does something instead of an INSERT.
type HazardRule struct {
	Name   string `json:"name"`
	Table  string `json:"table"`  // quoted where SQL needs it
	Always bool   `json:"always"` // it has no condition
}

// Warning is what an operator should know although the relay works: events may be missing or
// repeated, and the stream cannot tell.
type Warning struct {
	What string // what was found
	Hint string // the SQL or setting that helps
}

// checkHazards refuses what certainly keeps events out of the stream.
func (v View) checkHazards() error {
	for _, h := range v.Hazards {
		for _, r := range h.Rules {
			if r.Always {
				return &StopError{
					What: fmt.Sprintf("rule %q of table %s does something instead of an INSERT: it succeeds, "+
						"and leaves no row in outbox table %s.%s", r.Name, r.Table, h.Schema, h.Name),
					Hint: fmt.Sprintf("DROP RULE %s ON %s, or name the table that gets the rows in WALPOST_TABLE, too",
						quoteIdent(r.Name), r.Table),
					Gap: true,
				}
			}
		}
	}
	return nil
}

// Warnings lists what may cost or repeat an event. The view has passed Check.
func (v View) Warnings(cfg Config) []Warning {
	var found []Warning
	if v.Unseen != "" {
		found = append(found, Warning{
			"rules, triggers and subscriptions of the outbox cannot be inspected, " +
				"and could keep rows out of the stream: " + v.Unseen,
			fmt.Sprintf("GRANT SELECT ON pg_catalog.pg_proc, pg_catalog.pg_rewrite, pg_catalog.pg_trigger, "+
				"pg_catalog.pg_subscription_rel TO %s, or whichever was revoked", quoteIdent(cfg.Postgres.User)),
		})
	}
	if v.Publication != nil && len(v.Publication.Strangers) > 0 {
		found = append(found, v.Publication.warnOfStrangers(cfg))
	}
	for _, h := range v.Hazards {
		found = append(found, h.warnOfLoss()...)
		found = append(found, h.warnOfExtras(v, cfg)...)
	}
	return found
}

// warnOfStrangers is for whoever has changed the tables in the settings: the stream goes past the
// rows of one that they do not name, and they never come again.
func (p *PublicationView) warnOfStrangers(cfg Config) Warning {
	const most = 3
	names := strings.Join(p.Strangers[:min(most, len(p.Strangers))], ", ")
	if more := len(p.Strangers) - most; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return Warning{
		fmt.Sprintf("publication %q names tables that WALPOST_TABLE does not: their rows are no events, "+
			"and are skipped for good: %s", cfg.Publication, names),
		fmt.Sprintf("name those that are outboxes in WALPOST_TABLE; if none is, ALTER PUBLICATION %s DROP TABLE %s",
			quoteIdent(cfg.Publication), p.Strangers[0]),
	}
}

// warnOfLoss lists what may keep rows of the table out of the stream.
func (h TableHazards) warnOfLoss() []Warning {
	var found []Warning
	warn := func(what, hint string) { found = append(found, Warning{what, hint}) }
	table := Table{h.Schema, h.Name}
	for _, r := range h.Rules {
		if !r.Always {
			warn(fmt.Sprintf("rule %q of table %s does something else instead of some INSERTs: "+
				"those rows are not published", r.Name, r.Table),
				fmt.Sprintf("DROP RULE %s ON %s, unless that is intended", quoteIdent(r.Name), r.Table))
		}
	}
	if h.Dropping != "" {
		warn(fmt.Sprintf("trigger %q on table %s seems to return NULL for some rows, or another row than NEW: "+
			"then their INSERT succeeds, and leaves no row and no event", h.Dropping, table),
			"let its function return NEW, or name the table that it writes to in WALPOST_TABLE, too")
	}
	if h.Detaching != "" {
		warn(fmt.Sprintf("partition %s is being detached concurrently: "+
			"rows that running statements insert into it are not in the stream", h.Detaching),
			"compare its rows with what arrived, and use a plain DETACH PARTITION next time")
	}
	if h.AccessMethod != "" {
		warn(fmt.Sprintf("table %s, or a partition of it, has access method %q: "+
			"only heap is known to write its rows to the WAL", table, h.AccessMethod),
			fmt.Sprintf("ALTER TABLE %s SET ACCESS METHOD heap (Postgres 15 and later)", table.quoted()))
	}
	return found
}

// warnOfExtras lists what may make an event of a row that no service inserted.
func (h TableHazards) warnOfExtras(v View, cfg Config) []Warning {
	var found []Warning
	warn := func(what, hint string) { found = append(found, Warning{what, hint}) }
	table := Table{h.Schema, h.Name}
	if h.Subscription != "" && !cfg.LocalOnly {
		warn(fmt.Sprintf("subscription %q writes into table %s: "+
			"each row that it copies or applies becomes an event", h.Subscription, table),
			"set WALPOST_ORIGIN=none to leave them out, unless they are intended")
	}
	if h.Partition {
		warn(fmt.Sprintf("table %s is a partition: an UPDATE that moves a row into it publishes the row again, "+
			"because it is an INSERT in the stream", table),
			"refuse it with a trigger on the partitioned table: "+
				"docs/OPERATIONS.md#rows-that-move-between-partitions")
	}
	if h.Partitioned && !h.Guarded && !v.showsMoves(cfg, h) {
		warn(fmt.Sprintf("an UPDATE that moves a row of table %s to another partition publishes it again, "+
			"because it is an INSERT in the stream", table),
			"refuse it: "+rowsStay(table.quoted(), h.Key))
	}
	return found
}

// showsMoves reports whether the stream shows the DELETE of each row that moves, with its id. Then
// its INSERT is known not to be that of a service. If the replica identity is not the primary key
// at all levels, some are not known: the UPDATE may have changed the event, too.
func (v View) showsMoves(cfg Config, h TableHazards) bool {
	if v.Publication == nil || !v.Publication.Delete || h.Mixed || len(h.Key) == 0 || len(cfg.Columns) == 0 {
		return false
	}
	for _, p := range v.Publication.Tables {
		if p.Schema != h.Schema || p.Name != h.Name || p.Columns == nil {
			continue
		}
		for _, column := range h.Key {
			if !slices.Contains(p.Columns, column) {
				return false
			}
		}
	}
	id := cfg.Columns[0]
	return slices.Contains(h.Identity, id) && !slices.Contains(h.Key, id)
}

// PartitionKey returns the columns by which a table is partitioned; nil = it is not, or not only by
// columns.
func (v View) PartitionKey(schema, name string) []string {
	for _, h := range v.Hazards {
		if h.Schema == schema && h.Name == name && len(h.Key) > 0 {
			return h.Key
		}
	}
	return nil
}

// rowsStay is the SQL of a trigger that refuses an UPDATE of the partition key.
func rowsStay(table string, key []string) string {
	changed := "true" // of a key with expressions any column may be a part
	if len(key) > 0 {
		var parts []string
		for _, column := range key {
			parts = append(parts, fmt.Sprintf("OLD.%[1]s IS DISTINCT FROM NEW.%[1]s", quoteIdent(column)))
		}
		changed = strings.Join(parts, " OR ")
	}
	return "CREATE OR REPLACE FUNCTION outbox_rows_stay() RETURNS trigger LANGUAGE plpgsql AS " +
		"$$ BEGIN RAISE EXCEPTION 'a row of the outbox must not move to another partition'; END $$; " +
		fmt.Sprintf("CREATE TRIGGER outbox_rows_stay BEFORE UPDATE ON %s FOR EACH ROW WHEN (%s) "+
			"EXECUTE FUNCTION outbox_rows_stay()", table, changed)
}
