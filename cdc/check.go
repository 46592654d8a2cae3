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

func (v View) checkPublication(cfg Config) error {
	pub := v.Publication
	if pub == nil {
		return cfg.publicationMissing(nil)
	}
	name := quoteIdent(cfg.Publication)
	if !pub.Insert {
		return inDoubt(cfg, fmt.Sprintf("publication %q does not publish inserts", cfg.Publication),
			fmt.Sprintf("ALTER PUBLICATION %s SET (publish = 'insert')", name))
	}
	for _, want := range cfg.Tables {
		table := quoteIdent(want.Schema) + "." + quoteIdent(want.Name)
		at := slices.IndexFunc(v.Tables, func(t TableView) bool { return t.Schema == want.Schema && t.Name == want.Name })
		if at < 0 {
			return &StopError{
				What: fmt.Sprintf("outbox table %s does not exist", want),
				Hint: "if it was renamed or moved, undo that first: `walpost init` would make an empty one, and what was inserted under the other name is not published. " +
					"If there is none yet, make it with `walpost init`, or name your own in WALPOST_TABLE",
			}
		}
		if v.Tables[at].Kind == "p" && !pub.ViaRoot {
			return inDoubt(cfg, fmt.Sprintf("table %s is partitioned, and publication %q publishes its partitions under their own names", want, cfg.Publication),
				fmt.Sprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = true)", name))
		}
		if unlogged := v.Tables[at].Unlogged; unlogged != "" {
			return inDoubt(cfg, fmt.Sprintf("rows of table %s are not in the WAL: %s is unlogged, or a foreign table", want, unlogged),
				fmt.Sprintf("ALTER TABLE %s SET LOGGED", unlogged))
		}
		mine := at
		at = slices.IndexFunc(pub.Tables, func(t PublicationTableView) bool { return t.Schema == want.Schema && t.Name == want.Name })
		if at < 0 {
			return inDoubt(cfg, fmt.Sprintf("table %s is not in publication %q", want, cfg.Publication),
				fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", name, table))
		}
		if column := missingColumn(cfg, v.Tables[mine], pub.Tables[at]); column != "" {
			return inDoubt(cfg, fmt.Sprintf("publication %q leaves out column %q of table %s", cfg.Publication, column, want),
				fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE %s; ALTER PUBLICATION %s ADD TABLE %s", name, table, name, table))
		}
		if filter := pub.Tables[at].RowFilter; filter != nil {
			return inDoubt(cfg, fmt.Sprintf("publication %q filters the rows of table %s", cfg.Publication, want),
				fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE %s; ALTER PUBLICATION %s ADD TABLE %s", name, table, name, table))
		}
	}
	return nil
}

// missingColumn returns a column that the table has, that events are made of, and that the publication leaves out.
func missingColumn(cfg Config, table TableView, published PublicationTableView) string {
	if published.Columns == nil { // before Postgres 15 there are no column lists
		return ""
	}
	for _, c := range table.Columns {
		if slices.Contains(cfg.Columns, c.Name) && !slices.Contains(published.Columns, c.Name) {
			return c.Name
		}
	}
	return ""
}

// CheckUnaltered tells whether the publication was altered since it had an earlier identity, and perhaps altered back: what
// was committed in between is in doubt. What the earlier identity does not know, as a table that was named since, does
// not count. The view has passed Check; the error is a [*StopError].
func (v View) CheckUnaltered(cfg Config, earlier map[string]string) error {
	identity := v.Identity()
	if was, is := earlier[wholePublication], identity[wholePublication]; was != "" && oid(was) != oid(is) {
		return cfg.publicationMissing(fmt.Errorf("it was made anew since it was last looked at (in the catalog, as oid/xmin: it was %s, and is %s)", was, is))
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
	return &StopError{What: what, Hint: sql + "; " + cfg.alteredHint(), Gap: true}
}
