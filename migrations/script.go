package migrations

import (
	"embed"
	"errors"
	"fmt"
	"strings"
	"text/template"
)

// lockKey keeps two runs apart; it means nothing else. Advisory locks are per database.
const lockKey = 0x77616c706f7374 // "walpost"

//go:embed sql/*.sql
var sqlFiles embed.FS

var templates = template.Must(template.ParseFS(sqlFiles, "sql/*.sql"))

// SQL is the whole setup as a script for psql or the simple protocol, for databases where an owner
// applies it: tables, publication, and last the slot. It may be run again and then changes nothing.
func SQL(o Options) (string, error) {
	if err := o.validate(); err != nil {
		return "", err
	}
	if o.Slot == "" {
		return "", errors.New("describe outbox: the script needs the name of the slot")
	}
	type table struct{ Create, SchemaText, NameText, Regclass, Add string }
	var tables []table
	for _, t := range o.Tables {
		create, err := o.createTable(t)
		if err != nil {
			return "", err
		}
		schema, name, regclass := quoteText(t.Schema), quoteText(t.Name), quoteText(t.String())
		tables = append(tables, table{create, schema, name, regclass, o.addTable(t)})
	}
	block, err := render("publication.sql", map[string]any{
		"PublicationText": quoteText(o.Publication), "Create": o.createPublication(),
		"Tables": tables, "Slot": quoteText(o.Slot),
	})
	if err != nil {
		return "", err
	}
	arguments := quoteText(o.Slot) + ", 'pgoutput'"
	if o.Failover {
		arguments += ", failover => true"
	}
	return render("script.sql", map[string]any{
		"Lock": lockKey, "Tables": tables, "PublicationBlock": doBlock(block),
		"Slot": quoteText(o.Slot), "SlotArguments": arguments,
		"PublicationText": quoteText(o.Publication),
	})
}

// doBlock quotes a block of PL/pgSQL with a tag that does not occur in it.
func doBlock(body string) string {
	tag := "$walpost$"
	for n := 1; strings.Contains(body, tag); n++ {
		tag = fmt.Sprintf("$walpost%d$", n)
	}
	return "DO " + tag + body + tag
}

func (o Options) createTable(t Table) (string, error) {
	create, err := render("table.sql", map[string]any{
		"Table": t.String(), "ID": quoteName(o.column("id")), "AggregateType": quoteName(o.column("aggregatetype")),
		"AggregateID": quoteName(o.column("aggregateid")), "Type": quoteName(o.column("type")),
		"Payload": quoteName(o.column("payload")), "Headers": quoteName(o.column("headers")),
		"CreatedAt": quoteName(o.column("created_at")),
	})
	return strings.TrimSpace(create), err
}

func (o Options) createPublication() string {
	var tables []string
	for _, t := range o.Tables {
		tables = append(tables, t.String())
	}
	return fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (publish = 'insert', "+
		"publish_via_partition_root = true)",
		quoteName(o.Publication), strings.Join(tables, ", "))
}

func (o Options) addTable(t Table) string {
	return fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", quoteName(o.Publication), t)
}

// replaceTable takes a row filter or a column list off. In one transaction, so that no row falls
// between.
func (o Options) replaceTable(t Table) string {
	return fmt.Sprintf("BEGIN; ALTER PUBLICATION %s DROP TABLE %s; "+
		"%s; COMMIT", quoteName(o.Publication), t, o.addTable(t))
}

func render(name string, data any) (string, error) {
	var b strings.Builder
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		return "", fmt.Errorf("render %s: %w", name, err)
	}
	return strings.TrimRight(b.String(), "\n") + "\n", nil
}
