package cdc

import (
	"fmt"
	"slices"
	"strings"
)

// Check tells whether events could be missing in the stream, or about to be, by what the view shows. The error is a
// [*StopError], or [ErrStandby].
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
			What: fmt.Sprintf("slot %q is a %s slot with plugin %q, not a logical one with pgoutput", cfg.Slot, slot.Type, slot.Plugin),
			Hint: "name another slot in WALPOST_SLOT and make it with `walpost init`",
		}
	case !slot.SameDatabase:
		return &StopError{
			What: fmt.Sprintf("slot %q belongs to database %q", cfg.Slot, slot.Database),
			Hint: "one slot per database: name another slot in WALPOST_SLOT and make it with `walpost init`",
		}
	case slot.TwoPhase:
		return &StopError{
			What: fmt.Sprintf("slot %q has two_phase = true, so Postgres sends prepared transactions in a form that walpost does not read", cfg.Slot),
			Hint: cfg.onePhaseHint(),
		}
	case slot.WALStatus == "lost" || slot.Invalidation != "" || slot.Conflicting:
		return &StopError{
			What: fmt.Sprintf("slot %q was invalidated (wal_status %s, reason %q): Postgres has removed WAL that it needed",
				cfg.Slot, slot.WALStatus, slot.Invalidation),
			Hint: cfg.recreateHint(),
			Gap:  true,
		}
	}
	return nil
}

// CheckFound tells the same of what there is already, before anything is made: nothing that is missing counts.
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
		if err := t.check(cfg); err != nil {
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
		return inDoubt(cfg, fmt.Sprintf("publication %q does not publish inserts", cfg.Publication),
			fmt.Sprintf("ALTER PUBLICATION %s SET (publish = 'insert')", quoteIdent(cfg.Publication)))
	}
	for _, want := range cfg.Tables {
		at := slices.IndexFunc(v.Tables, func(t TableView) bool { return t.Schema == want.Schema && t.Name == want.Name })
		if at < 0 {
			return &StopError{
				What: fmt.Sprintf("outbox table %s does not exist", want),
				Hint: "if it was renamed or moved, undo that first: `walpost init` would make an empty one, and what was inserted under the other name is not published. " +
					"If there is none yet, make it with `walpost init`, or name your own in WALPOST_TABLE",
			}
		}
		if err := v.Tables[at].check(cfg); err != nil {
			return err
		}
		if err := pub.checkTable(cfg, want, v.Tables[at]); err != nil {
			return err
		}
	}
	return v.checkHazards()
}

// check tells whether a row that a SELECT from the table shows may be missing in the stream, whatever is published.
func (t TableView) check(cfg Config) error {
	name := quoteIdent(t.Schema) + "." + quoteIdent(t.Name)
	switch {
	case t.Kind != "r" && t.Kind != "p":
		return &StopError{
			What: fmt.Sprintf("outbox table %s.%s is no table but %s, which has no rows in the WAL", t.Schema, t.Name, kinds[t.Kind]),
			Hint: "name the table that services insert into in WALPOST_TABLE",
		}
	case t.Child != "":
		return inDoubt(cfg, fmt.Sprintf("rows of table %s.%s may lie in tables that inherit from it (%d: %s ...), which are not published under its name",
			t.Schema, t.Name, t.Children, t.Child),
			fmt.Sprintf("name each of them in WALPOST_TABLE, and run `walpost init`, if services insert into them; ALTER TABLE %s NO INHERIT %s, if not; "+
				"partitions of a table PARTITION BY need neither", t.Child, name))
	case t.Unlogged != "":
		return inDoubt(cfg, fmt.Sprintf("rows of table %s.%s are not in the WAL: %s is unlogged, or a foreign table", t.Schema, t.Name, t.Unlogged),
			fmt.Sprintf("ALTER TABLE %s SET LOGGED", t.Unlogged))
	}
	return nil
}

// kinds are relations that are no tables, by relkind.
var kinds = map[string]string{"v": "a view", "m": "a materialized view", "f": "a foreign table"}

// checkTable tells whether the publication leaves out anything of a table.
func (p *PublicationView) checkTable(cfg Config, want Table, table TableView) error {
	name := quoteIdent(cfg.Publication)
	again := fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE %s; ALTER PUBLICATION %s ADD TABLE %s", name, want.quoted(), name, want.quoted())
	at := slices.IndexFunc(p.Tables, func(t PublicationTableView) bool { return t.Schema == want.Schema && t.Name == want.Name })
	switch {
	case table.Kind == "p" && !p.ViaRoot:
		return inDoubt(cfg, fmt.Sprintf("table %s is partitioned, and publication %q publishes its partitions under their own names", want, cfg.Publication),
			fmt.Sprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = true)", name))
	case at < 0:
		return inDoubt(cfg, fmt.Sprintf("table %s is not in publication %q", want, cfg.Publication),
			fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", name, want.quoted()))
	}
	published := p.Tables[at]
	if published.Root != "" {
		return inDoubt(cfg, fmt.Sprintf("table %s is a partition of %s, and publication %q publishes its rows under that name", want, published.Root, cfg.Publication),
			fmt.Sprintf("name %s in WALPOST_TABLE instead, if its other partitions hold events, too; else use a publication that has %s alone", published.Root, want))
	}
	if column := p.missingColumn(cfg, table, published); column != nil {
		if column.Generated != "" {
			return cfg.generatedColumn(want, column)
		}
		return inDoubt(cfg, fmt.Sprintf("publication %q leaves out column %q of table %s", cfg.Publication, column.Name, want), again)
	}
	if published.Filtered {
		return inDoubt(cfg, fmt.Sprintf("publication %q filters the rows of table %s", cfg.Publication, want), again)
	}
	return nil
}

// missingColumn returns a column that the table has, that events are made of, and that does not reach the stream. A generated one does
// on Postgres 18 and later alone, if the publication says so and the column is stored; a list of columns may name it.
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

// generatedColumn says what to do about a column that services fill with an expression.
func (c Config) generatedColumn(table Table, column *ColumnView) error {
	hint := fmt.Sprintf("name another column in WALPOST_COLUMNS or WALPOST_TOPIC; or ALTER TABLE %s ALTER COLUMN %s DROP EXPRESSION, and fill it in a BEFORE INSERT trigger",
		table.quoted(), quoteIdent(column.Name))
	if column.Generated == "s" {
		hint += fmt.Sprintf("; on Postgres 18 and later ALTER PUBLICATION %s SET (publish_generated_columns = stored) is enough", quoteIdent(c.Publication))
	}
	return &StopError{
		What: fmt.Sprintf("column %q of table %s is generated, and publication %q does not publish it", column.Name, table, c.Publication),
		Hint: hint,
	}
}

// CheckUnaltered tells whether the publication was altered since it had an earlier identity, and perhaps altered back: what
// was committed in between is in doubt. What the earlier identity does not know, as a table that was named since, does
// not count. The view has passed Check; the error is a [*StopError].
func (v View) CheckUnaltered(cfg Config, earlier map[string]string) error {
	identity := v.Identity()
	if v.MadeAnew(earlier) {
		return cfg.publicationMissing(fmt.Errorf("it was made anew since it was last looked at (in the catalog, as oid/xmin: it was %s, and is %s)",
			earlier[wholePublication], identity[wholePublication]))
	}
	for what, now := range identity {
		if before, known := earlier[what]; known && before != now {
			return &StopError{
				What: fmt.Sprintf("publication %q was altered since it was last looked at, and what was inserted meanwhile may be missing in the stream (in the catalog, as oid/xmin: %s was %s, is %s)",
					cfg.Publication, what, before, now),
				Hint: cfg.alteredHint(),
				Gap:  true,
			}
		}
	}
	return nil
}

// MadeAnew reports whether the publication is another one of the same name than when it had an earlier identity: a slot cannot read what
// was committed in between. The view has a publication.
func (v View) MadeAnew(earlier map[string]string) bool {
	was := earlier[wholePublication]
	return was != "" && oid(was) != oid(v.Publication.Identity)
}

// CheckServer tells whether the view shows another server than the stream comes from: behind one address there may be several.
// The error is [Transient].
func (v View) CheckServer(system string, timeline uint32) error {
	switch {
	case v.System != system:
		return &brokenError{what: fmt.Sprintf("the address of Postgres leads to several clusters: %s and %s", system, v.System)}
	case v.Timeline == 0:
		return ErrStandby
	case v.Timeline != timeline:
		return &brokenError{what: fmt.Sprintf("the address of Postgres leads to several servers: one on timeline %d, one on %d", timeline, v.Timeline)}
	}
	return nil
}

// wholePublication is the name of the publication itself in its identity.
const wholePublication = "publication"

// oid is the first part of the identity of a row in the catalog.
func oid(identity string) string {
	oid, _, _ := strings.Cut(identity, "/")
	return oid
}

// Identity returns what changes whenever somebody alters the publication or takes a table out of it, even if it is altered
// back: names, and the identities of their rows in the catalog. The view has passed Check.
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

// alteredHint says how to go on after the publication did not cover the outbox for a while.
func (c Config) alteredHint() string {
	return fmt.Sprintf("`walpost init --accept-gap` records the publication as it is now, and walpost goes on from the stored position: start it. "+
		"If the change was harmless, as another owner, that is all. Events inserted while it did not cover the outbox are not in the stream, but they are in the table: "+
		"once slot %q has no lag, compare the table with what arrived, and insert what is missing again", c.Slot)
}

// inDoubt says that inserts may have been left out of the stream; sql ends that.
func inDoubt(cfg Config, what, sql string) error {
	return &StopError{What: what, Hint: sql + "; " + cfg.alteredHint(), Mend: sql, Gap: true}
}

// onePhaseHint makes the slot one without two_phase, in place: a copy has the same position, and not this option.
func (c Config) onePhaseHint() string {
	one := "'" + c.Slot + "'"
	other := "'" + c.Slot[:min(len(c.Slot), 55)] + "_copied'"
	return fmt.Sprintf("a copy of a slot has its position, and no two_phase: SELECT pg_copy_logical_replication_slot(%[1]s, %[2]s); SELECT pg_drop_replication_slot(%[1]s); "+
		"SELECT pg_copy_logical_replication_slot(%[2]s, %[1]s); SELECT pg_drop_replication_slot(%[2]s); then start walpost", one, other)
}
