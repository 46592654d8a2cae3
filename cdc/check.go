package cdc

import (
	"fmt"
	"slices"
	"strings"
)

// Check reports whether, by what the view shows, rows may be missing in the stream, or soon will
// be. The error is a [*StopError], or [ErrStandby].
func (v View) Check(cfg Config) error {
	if v.Timeline == 0 {
		return ErrStandby
	}
	if err := v.checkSlot(cfg); err != nil {
		return err
	}
	return v.checkPublication(cfg)
}

func (v View) checkSlot(cfg Config) error {
	slot := v.Slot
	switch {
	case slot == nil:
		return cfg.slotMissing(nil)
	case slot.Type != "logical" || slot.Plugin != "pgoutput":
		return &StopError{
			What: fmt.Sprintf("slot %q is a %s slot with plugin %q, not a logical one with pgoutput",
				cfg.Slot, slot.Type, slot.Plugin),
			Hint: "name another slot in WALPOST_SLOT and create it with `walpost init`",
		}
	case !slot.SameDatabase:
		return &StopError{
			What: fmt.Sprintf("slot %q belongs to database %q", cfg.Slot, slot.Database),
			Hint: "name another slot in WALPOST_SLOT, one for each database, and create it with `walpost init`",
		}
	case slot.TwoPhase:
		return &StopError{
			What: fmt.Sprintf("slot %q has two_phase = true, "+
				"so Postgres sends prepared transactions in a form that walpost does not read", cfg.Slot),
			Hint: cfg.onePhaseHint(),
		}
	case slot.WALStatus == "lost" || slot.Invalidation != "" || slot.Conflicting:
		return &StopError{
			What: fmt.Sprintf("slot %q was invalidated (wal_status %s, reason %q): "+
				"Postgres has removed WAL that it needed", cfg.Slot, slot.WALStatus, slot.Invalidation),
			Hint: cfg.recreateHint(),
			Gap:  true,
		}
	}
	return nil
}

// CheckFound checks what exists before anything is created. What is missing does not count.
func (v View) CheckFound(cfg Config) error {
	if v.Timeline == 0 {
		return ErrStandby
	}
	if v.Slot != nil {
		if err := v.checkSlot(cfg); err != nil {
			return err
		}
	}
	for _, t := range v.Tables {
		if err := t.check(); err != nil {
			return err
		}
	}
	return v.checkHazards()
}

func (v View) checkPublication(cfg Config) error {
	pub := v.Publication
	if pub == nil {
		return cfg.publicationMissing(nil)
	}
	if !pub.Insert {
		return inDoubt(fmt.Sprintf("publication %q does not publish inserts", cfg.Publication),
			fmt.Sprintf("ALTER PUBLICATION %s SET (publish = 'insert')", quoteIdent(cfg.Publication)))
	}
	for _, want := range cfg.Tables {
		at := slices.IndexFunc(v.Tables, func(t TableView) bool { return Table{t.Schema, t.Name} == want })
		if at < 0 {
			return &StopError{
				What: fmt.Sprintf("outbox table %s does not exist", want),
				Hint: "if it was renamed or moved, undo that: rows inserted under the other name are not published, " +
					"and `walpost init` would create an empty table. " +
					"If it never existed, run `walpost init`, or name your own table in WALPOST_TABLE",
			}
		}
		if err := v.Tables[at].check(); err != nil {
			return err
		}
		if err := pub.checkTable(cfg, want, v.Tables[at]); err != nil {
			return err
		}
	}
	return v.checkHazards()
}

// check reports whether a row that a SELECT from the table shows may be missing in the stream,
// whatever is published.
func (t TableView) check() error {
	table := Table{t.Schema, t.Name}
	switch {
	case t.Kind != "r" && t.Kind != "p":
		return &StopError{
			What: fmt.Sprintf("outbox table %s is no table but %s, which has no rows in the WAL", table, kinds[t.Kind]),
			Hint: "name the table that services insert into in WALPOST_TABLE",
		}
	case t.Child != "":
		return inDoubt(
			fmt.Sprintf("rows of table %s may lie in tables that inherit from it (%d: %s ...), "+
				"which are not published under its name", table, t.Children, t.Child),
			fmt.Sprintf("if services insert into them, name each of them in WALPOST_TABLE and run `walpost init`; "+
				"if not, ALTER TABLE %s NO INHERIT %s (partitions of a table PARTITION BY need neither)",
				t.Child, table.quoted()))
	case t.Unlogged != "":
		return inDoubt(
			fmt.Sprintf("rows of table %s are not in the WAL: %s is unlogged, or a foreign table", table, t.Unlogged),
			fmt.Sprintf("ALTER TABLE %s SET LOGGED", t.Unlogged))
	}
	return nil
}

// kinds names the relations that are no tables, by relkind.
var kinds = map[string]string{"v": "a view", "m": "a materialized view", "f": "a foreign table"}

// checkTable reports whether the publication leaves out anything of a table.
func (p *PublicationView) checkTable(cfg Config, want Table, table TableView) error {
	name := quoteIdent(cfg.Publication)
	addAgain := fmt.Sprintf("ALTER PUBLICATION %[1]s DROP TABLE %[2]s; ALTER PUBLICATION %[1]s ADD TABLE %[2]s",
		name, want.quoted())
	at := slices.IndexFunc(p.Tables, func(t PublicationTableView) bool { return Table{t.Schema, t.Name} == want })
	switch {
	case table.Kind == "p" && !p.ViaRoot:
		return inDoubt(
			fmt.Sprintf("table %s is partitioned, and publication %q publishes its partitions under their own names",
				want, cfg.Publication),
			fmt.Sprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = true)", name))
	case at < 0:
		return inDoubt(fmt.Sprintf("table %s is not in publication %q", want, cfg.Publication),
			fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", name, want.quoted()))
	}
	published := p.Tables[at]
	if published.Root != "" {
		return inDoubt(
			fmt.Sprintf("table %s is a partition of %s, and publication %q publishes its rows under that name",
				want, published.Root, cfg.Publication),
			fmt.Sprintf("if the other partitions of %[1]s hold events, too, name %[1]s in WALPOST_TABLE instead; "+
				"if not, use a publication that has only %[2]s", published.Root, want))
	}
	if column := p.missingColumn(cfg, table, published); column != nil {
		if column.Generated != "" {
			return cfg.generatedColumn(want, column)
		}
		return inDoubt(
			fmt.Sprintf("publication %q leaves out column %q of table %s", cfg.Publication, column.Name, want),
			addAgain)
	}
	if published.Filtered {
		return inDoubt(fmt.Sprintf("publication %q filters the rows of table %s", cfg.Publication, want), addAgain)
	}
	return nil
}

// missingColumn returns a column of the table that events are made of, but that does not reach the
// stream. A generated column does so only on Postgres 18 and later, if it is stored and the
// publication publishes such columns, or has it in its column list.
func (p *PublicationView) missingColumn(cfg Config, table TableView, published PublicationTableView) *ColumnView {
	for i, c := range table.Columns {
		reaches := published.Columns == nil || slices.Contains(published.Columns, c.Name)
		if c.Generated != "" && published.Columns == nil {
			reaches = p.Generated == c.Generated
		}
		if slices.Contains(cfg.Columns, c.Name) && !reaches {
			return &table.Columns[i]
		}
	}
	return nil
}

// generatedColumn refuses a generated column that the publication does not publish.
func (c Config) generatedColumn(table Table, column *ColumnView) error {
	hint := fmt.Sprintf("name another column in WALPOST_COLUMNS or WALPOST_TOPIC; "+
		"or ALTER TABLE %s ALTER COLUMN %s DROP EXPRESSION, and fill it in a BEFORE INSERT trigger",
		table.quoted(), quoteIdent(column.Name))
	if column.Generated == "s" {
		hint += fmt.Sprintf("; on Postgres 18 and later ALTER PUBLICATION %s SET (publish_generated_columns = stored) "+
			"is enough", quoteIdent(c.Publication))
	}
	return &StopError{
		What: fmt.Sprintf("column %q of table %s is generated, and publication %q does not publish it",
			column.Name, table, c.Publication),
		Hint: hint,
	}
}

// CheckUnaltered reports whether the publication was altered since it had an earlier identity, and
// perhaps altered back: rows that were committed in between may be missing in the stream. What the
// earlier identity does not have, such as a table that the settings did not name, does not count.
// The view has passed Check; the error is a [*StopError].
func (v View) CheckUnaltered(cfg Config, earlier map[string]string) error {
	identity := v.Identity()
	if v.MadeAnew(earlier) {
		return cfg.publicationMissing(fmt.Errorf("it was made anew since the last inspection "+
			"(oid/xmin in the catalog: was %s, is %s)", earlier[wholePublication], identity[wholePublication]))
	}
	for what, now := range identity {
		if before, known := earlier[what]; known && before != now {
			return &StopError{
				What: fmt.Sprintf("publication %q was altered since the last inspection, so rows inserted meanwhile "+
					"may be missing in the stream (oid/xmin in the catalog: %s was %s, is %s)",
					cfg.Publication, what, before, now),
				Hint: alteredHint,
				Gap:  true,
			}
		}
	}
	return nil
}

// MadeAnew reports whether the publication was dropped and created again since it had an earlier
// identity: the slot cannot read what was committed in between. The view has a publication.
func (v View) MadeAnew(earlier map[string]string) bool {
	was := earlier[wholePublication]
	return was != "" && oid(was) != oid(v.Publication.Identity)
}

// CheckServer reports whether the view is of another server than the stream: one address may lead
// to several. The error is [Transient].
func (v View) CheckServer(system string, timeline uint32) error {
	const several = "the address of Postgres leads to several "
	switch {
	case v.System != system:
		return &brokenError{what: fmt.Sprintf(several+"clusters: %s and %s", system, v.System)}
	case v.Timeline == 0:
		return ErrStandby
	case v.Timeline != timeline:
		return &brokenError{what: fmt.Sprintf(several+"servers: one on timeline %d, one on %d", timeline, v.Timeline)}
	}
	return nil
}

// wholePublication is the key of the publication itself in its identity.
const wholePublication = "publication"

// oid returns the OID of a catalog row from its identity, which is oid/xmin.
func oid(identity string) string {
	oid, _, _ := strings.Cut(identity, "/")
	return oid
}

// Identity returns the publication identity: names, and OID and xmin of their catalog rows. It
// changes when somebody alters the publication or takes a table out of it, even if they undo that.
// The view has passed Check.
func (v View) Identity() map[string]string {
	identity := map[string]string{wholePublication: v.Publication.Identity}
	for _, t := range v.Publication.Tables {
		identity["table "+t.Schema+"."+t.Name] = t.Identity
		if t.Ancestors != "" {
			identity["ancestors of table "+t.Schema+"."+t.Name] = t.Ancestors
		}
	}
	return identity
}

// alteredHint says how to continue after the publication did not cover the outbox for a while.
const alteredHint = "run `walpost init --accept-gap` and start walpost: it continues from the stored position. " +
	"Unless the change was harmless, such as a new owner, find the rows that were left out: " +
	"docs/OPERATIONS.md#rows-left-out"

// inDoubt says that the publication may have left out rows; sql ends that.
func inDoubt(what, sql string) error {
	return &StopError{What: what, Hint: sql + "; then " + alteredHint, Mend: sql, Gap: true}
}

// onePhaseHint replaces the slot by one without two_phase, with the same name: a copy of a slot has
// its position, but not this option.
func (c Config) onePhaseHint() string {
	one := "'" + c.Slot + "'"
	other := "'" + c.Slot[:min(len(c.Slot), 55)] + "_copied'"
	return fmt.Sprintf("replace it by a copy, which has its position and no two_phase: "+
		"SELECT pg_copy_logical_replication_slot(%[1]s, %[2]s); SELECT pg_drop_replication_slot(%[1]s); "+
		"SELECT pg_copy_logical_replication_slot(%[2]s, %[1]s); SELECT pg_drop_replication_slot(%[2]s); "+
		"then start walpost", one, other)
}
