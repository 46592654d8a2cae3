package migrations

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// plan says what is good, what init makes, and what somebody else has to mend.
type plan struct {
	Report
	statements []string
	options    Options
	facts      facts
}

func makePlan(f facts, o Options) (*plan, error) {
	p := &plan{options: o, facts: f}
	p.checkServer()
	for i := range f.tables {
		if err := p.checkTable(&f.tables[i]); err != nil {
			return nil, err
		}
	}
	p.checkPublication()
	return p, nil
}

const byOwner = "or let a role that may do it run: walpost init --print | psql"

func (p *plan) checkServer() {
	f := p.facts
	if f.standby {
		p.add(Problem, "server", "is a standby, which takes no changes: give the address of the primary")
	}
	if f.walLevel != "logical" {
		p.add(Problem, "server", fmt.Sprintf("wal_level is %s, and logical replication needs logical. "+
			"Set it and restart Postgres", f.walLevel), "ALTER SYSTEM SET wal_level = 'logical'")
	}
	if !f.replication {
		p.add(Problem, "role "+f.role, "may not use replication slots. A superuser can allow it",
			fmt.Sprintf("ALTER ROLE %s REPLICATION", quoteName(f.role)))
	}
}

func (p *plan) checkTable(t *tableFacts) error {
	object := "table " + t.label()
	switch {
	case !t.schemaThere:
		p.add(Problem, object, "its schema does not exist", "CREATE SCHEMA "+quoteName(t.Schema))
	case !t.there && !t.schemaCreate:
		p.add(Problem, object, fmt.Sprintf("does not exist, and role %s may not create it. "+
			"Allow it, %s", p.facts.role, byOwner),
			fmt.Sprintf("GRANT USAGE, CREATE ON SCHEMA %s TO %s", quoteName(t.Schema), quoteName(p.facts.role)))
	case !t.there:
		create, err := p.options.createTable(t.Table)
		if err != nil {
			return err
		}
		p.statements = append(p.statements, create)
		p.add(Made, object, "created")
	case t.kind != "r" && t.kind != "p":
		p.add(Problem, object, "is not a table (relkind "+t.kind+"), and only tables can be published")
	case t.persistence != "p":
		p.add(Problem, object, "is unlogged or temporary, so its rows never reach the WAL",
			fmt.Sprintf("ALTER TABLE %s SET LOGGED", t))
	default:
		if p.checkColumns(t, object) {
			p.add(Found, object, "found, its columns fit")
		}
	}
	return nil
}

// checkColumns compares the columns with the contract and says whether the relay can work with
// them.
func (p *plan) checkColumns(t *tableFacts, object string) bool {
	good := true
	problem := func(format string, args ...any) {
		good = false
		p.add(Problem, object, fmt.Sprintf(format, args...))
	}
	for _, name := range columnNames {
		own := p.options.column(name)
		c, there := t.columns[own]
		mapped := p.options.Columns[name] != ""
		switch {
		case !there && mapped:
			problem("column %q is missing, which --columns (WALPOST_COLUMNS) names as %s. Its "+
				"columns: %s", own, name, t.columnList())
		case !there && requiredColumns[name]:
			problem("column %q is missing. If it has another name, say so: --columns %s=NAME "+
				"(WALPOST_COLUMNS). Its columns: %s",
				own, name, t.columnList())
		case !there:
		case c.generated != "" && name != "created_at" && !p.reaches(t, own, c):
			problem("column %q is generated, and does not reach the stream. Name another one in --columns "+
				"(WALPOST_COLUMNS), have a trigger "+
				"fill this one, or on Postgres 18 and later publish a stored one: SET "+
				"(publish_generated_columns = stored)", own)
		case !typeFits(name, c):
			problem("column %q is of type %s, and %s must be %s. Name another one in --columns "+
				"(WALPOST_COLUMNS), or give it such a type",
				own, c.typeName, name, wantedType[name])
		case requiredColumns[name] && name != "payload" && !c.notNull:
			p.add(Warning, object, fmt.Sprintf("column %q may be NULL, and the relay stops at such a row", own),
				fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL", t, quoteName(own)))
		}
	}
	return good
}

// reaches tells whether the publication that is there publishes a generated column.
func (p *plan) reaches(t *tableFacts, name string, c columnFacts) bool {
	if len(t.published) > 0 {
		return slices.Contains(t.published, name)
	}
	return p.facts.publication.there && p.facts.publication.generated == c.generated
}

var wantedType = map[string]string{
	"aggregatetype": "text, varchar, char, name or an enum",
	"payload":       "jsonb, json, text, varchar, char, citext, xml or bytea",
	"headers":       "jsonb, json, text, varchar, char or citext",
}

func typeFits(name string, c columnFacts) bool {
	switch name {
	case "aggregatetype":
		return c.category == "S" || c.category == "E" // A text of some kind, or an enum.
	case "payload":
		return slices.Contains([]string{"jsonb", "json", "text", "varchar", "bpchar", "citext", "xml", "bytea"}, c.base)
	case "headers":
		return slices.Contains([]string{"jsonb", "json", "text", "varchar", "bpchar", "citext"}, c.base)
	}
	return true
}

func (t *tableFacts) columnList() string {
	return strings.Join(slices.Sorted(maps.Keys(t.columns)), ", ")
}

func (p *plan) checkPublication() {
	pub, object := p.facts.publication, "publication "+p.options.Publication
	if !pub.there {
		p.planPublication(object)
		return
	}
	before := len(p.Problems())
	alter := "ALTER PUBLICATION " + quoteName(p.options.Publication)
	if !pub.insert {
		p.add(Problem, object, "does not publish INSERT, so no event would ever arrive. Its owner is "+pub.owner,
			alter+" SET (publish = 'insert')")
	}
	if pub.allTables {
		p.add(Warning, object, "is FOR ALL TABLES: the changes of every table travel to the relay, which "+
			"passes them over. "+
			"One for the outbox alone spares both sides the work")
	}
	for i := range p.facts.tables {
		p.checkMember(object, &p.facts.tables[i], alter)
	}
	there := p.published(func(t tableFacts) bool { return t.member })
	if len(p.Problems()) == before && there != "" {
		p.add(Found, object, "found"+there)
	}
}

func (p *plan) checkMember(object string, t *tableFacts, alter string) {
	pub := p.facts.publication
	if t.kind == "p" && !pub.viaRoot {
		p.add(Problem, object, "names the partitions of "+t.label()+" instead of the table itself. Its "+
			"owner is "+pub.owner,
			alter+" SET (publish_via_partition_root = true)")
	}
	switch {
	case !t.member && !t.there && !t.schemaCreate:
		// There is no table to add, which was said already.
	case !t.member && pub.ours && (t.ours || !t.there):
		p.statements = append(p.statements, p.options.addTable(t.Table))
		p.add(Made, object, "extended by table "+t.label())
	case !t.member:
		tableOwner := t.owner
		if !t.there {
			tableOwner = p.facts.role
		}
		p.add(Problem, object, fmt.Sprintf("does not hold table %s, and role %s may not add it: that takes "+
			"the owner of the publication, %s, "+
			"who must own the table as well (its "+
			"owner is %s)", t.label(), p.facts.role, pub.owner, tableOwner), p.options.addTable(t.Table))
	case t.rowFilter:
		p.add(Problem, object, "filters the rows of "+t.label()+", so events would be missing. Its owner is "+pub.owner,
			p.options.replaceTable(t.Table))
	case len(t.published) > 0:
		p.checkColumnList(object, t)
	}
}

func (p *plan) checkColumnList(object string, t *tableFacts) {
	for _, name := range columnNames {
		own := p.options.column(name)
		if _, there := t.columns[own]; !there || name == "created_at" || slices.Contains(t.published, own) {
			continue
		}
		level := Warning
		if requiredColumns[name] || p.options.Columns[name] != "" {
			level = Problem
		}
		p.add(level, object, fmt.Sprintf("leaves out column %q of %s. Its "+
			"owner is %s", own, t.label(), p.facts.publication.owner),
			p.options.replaceTable(t.Table))
	}
}

// planPublication creates the publication if the role may, and says what is missing otherwise.
func (p *plan) planPublication(object string) {
	f, possible := p.facts, true
	if !f.dbCreate {
		possible = false
		p.add(Problem, object, fmt.Sprintf("does not exist, and role %s may not create it. "+
			"Allow it, %s", f.role, byOwner),
			fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s", quoteName(f.database), quoteName(f.role)))
	}
	for i := range f.tables {
		if t := &f.tables[i]; t.there && !t.ours {
			possible = false
			text := fmt.Sprintf("does not exist, and only the owner of table %s, role %s, may publish it. "+
				"Let that role run: walpost init --print | psql", t.label(), t.owner)
			if t.superuser { // nobody should become one for this
				p.add(Problem, object, text)
				continue
			}
			grant := fmt.Sprintf("GRANT %s TO %s", quoteName(t.owner), quoteName(f.role))
			p.add(Problem, object, text+", or act for it", grant)
		}
	}
	if possible {
		p.statements = append(p.statements, p.options.createPublication())
		p.add(Made, object, "created"+p.published(func(tableFacts) bool { return true }))
	}
}

// published names the tables that it is true of, as those that the publication has.
func (p *plan) published(has func(t tableFacts) bool) string {
	var names []string
	for _, t := range p.facts.tables {
		if has(t) {
			names = append(names, t.label())
		}
	}
	if names == nil {
		return ""
	}
	return ", publishes insert of " + strings.Join(names, ", ")
}
