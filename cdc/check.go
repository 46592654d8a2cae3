package cdc

import (
	"fmt"
	"slices"
)

// Check tells whether events could be missing in the stream, or about to be, by what the view shows. The error is a
// [*StopError].
func (v View) Check(cfg Config) error {
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
				Hint: "make it with `walpost init`, or name your own in WALPOST_TABLE",
			}
		}
		if v.Tables[at].Kind == "p" && !pub.ViaRoot {
			return inDoubt(cfg, fmt.Sprintf("table %s is partitioned, and publication %q publishes its partitions under their own names", want, cfg.Publication),
				fmt.Sprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = true)", name))
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

// CheckSince also tells whether the publication was changed and changed back since an earlier view: what was committed
// in between is in doubt.
func (v View) CheckSince(cfg Config, earlier View) error {
	if err := v.Check(cfg); err != nil {
		return err
	}
	if earlier.Publication == nil || v.Publication.fingerprint() == earlier.Publication.fingerprint() {
		return nil
	}
	return inDoubt(cfg, fmt.Sprintf("publication %q was altered while the stream ran", cfg.Publication), "")
}

func (p *PublicationView) fingerprint() string {
	tables := make([]string, len(p.Tables))
	for i, t := range p.Tables {
		tables[i] = t.Schema + "." + t.Name + " " + t.Identity
	}
	slices.Sort(tables)
	return fmt.Sprint(p.Identity, tables)
}

// inDoubt says that inserts may have been left out of the stream.
func inDoubt(cfg Config, what, sql string) error {
	hint := fmt.Sprintf("events inserted meanwhile are not in the stream, but they are in the outbox table. "+
		"Compare it with what was published after the confirmed position of slot %q, insert what is missing again, and start walpost", cfg.Slot)
	if sql != "" {
		hint = sql + "; " + hint
	}
	return &StopError{What: what, Hint: hint}
}
