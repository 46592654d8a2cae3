package migrations

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Table names an outbox table as the catalog spells it.
type Table struct {
	Schema, Name string
}

// String writes the table as SQL does, quoted.
func (t Table) String() string { return pgx.Identifier{t.Schema, t.Name}.Sanitize() }

// label is the table for a reader: quoted only where it helps.
func (t Table) label() string { return t.Schema + "." + t.Name }

// Options say what should exist.
type Options struct {
	Tables      []Table
	Columns     map[string]string // Where columns have other names: from the contract's name to the table's.
	Publication string
	Slot        string // For SQL alone.
	Failover    bool   // For SQL alone: a failover slot. Postgres 17 and later.
}

// columnNames are the columns of an outbox table, by the names of the contract, in its order.
var columnNames = []string{"id", "aggregatetype", "aggregateid", "type", "payload", "headers", "created_at"}

// requiredColumns are those that an event cannot be made without.
var requiredColumns = map[string]bool{"id": true, "aggregatetype": true, "aggregateid": true, "payload": true}

// column is the table's own name of a column.
func (o Options) column(name string) string {
	if mapped := o.Columns[name]; mapped != "" {
		return mapped
	}
	return name
}

func (o Options) validate() error {
	if len(o.Tables) == 0 || o.Publication == "" {
		return errors.New("describe outbox: at least one table and a publication are needed")
	}
	names := []string{o.Publication, o.Slot}
	for _, table := range o.Tables {
		if table.Schema == "" || table.Name == "" {
			return errors.New("describe outbox: a table needs a schema and a name")
		}
		names = append(names, table.Schema, table.Name)
	}
	for _, name := range columnNames {
		names = append(names, o.column(name))
	}
	for _, name := range names {
		if strings.ContainsRune(name, 0) {
			return fmt.Errorf("describe outbox: %q holds a zero byte", name)
		}
	}
	return nil
}

func quoteName(name string) string { return pgx.Identifier{name}.Sanitize() }

// quoteText writes a literal that means the same whatever standard_conforming_strings is.
func quoteText(text string) string {
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	if strings.Contains(text, `\`) {
		return " E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}
