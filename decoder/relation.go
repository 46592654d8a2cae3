package decoder

import (
	"slices"
	"strings"
)

// logical is a column of the contract.
type logical int

const (
	colID logical = iota
	colAggregateType
	colAggregateID
	colType
	colPayload
	colHeaders
	logicalColumns
)

// contract says what a column of the contract must be.
var contract = [logicalColumns]struct {
	name     string
	required bool
	accepts  func(oid, base uint32) bool
	want     string // what accepts accepts, for the error
}{
	colID:            {"id", true, anyType, ""},
	colAggregateType: {"aggregatetype", true, isLabel, "text, varchar, char, name or a user-defined type"},
	colAggregateID:   {"aggregateid", true, anyType, ""},
	colType:          {"type", false, anyType, ""},
	colPayload:       {"payload", true, isPayload, "jsonb, json, text, varchar, char, citext, xml or bytea"},
	colHeaders:       {"headers", false, isHeaders, "jsonb, json, text, varchar, char or citext"},
}

// absent is the slot of a column that the relation does not have, or that no
// event needs.
const absent int16 = -1

// column is a wanted column of a relation.
type column struct {
	name     string
	oid      uint32 // of the type whose values it holds
	declared uint32 // of its type, which may be a domain
}

// plan says where the wanted columns of an outbox table are. Each has a slot. A
// column that serves several purposes has one slot all the same.
type plan struct {
	schema, table string
	want          []int16               // slot by position in the row
	columns       []column              // by slot
	logical       [logicalColumns]int16 // slot by column of the contract
	extra         []int16               // slot by column of Config.Extra
	moves         []bool                // by position: of the partition key; nil = its rows do not move
	renamed       bool                  // an outbox table under another name, whose rows are no events
}

// relation reads a Relation message. The server sends one before the first
// change of a table, and again after every change of its definition; the last
// one counts.
func (d *Decoder) relation(r *reader) *Error {
	oid := r.uint32()
	schema, table := string(r.cstring()), string(r.cstring())
	if schema == "" {
		schema = "pg_catalog" // the protocol's abbreviation
	}
	r.byte() // the replica identity, which an insert does not need
	columns := d.readColumns(r)
	if err := r.end("Relation"); err != nil {
		return err
	}
	if !d.tables[Table{schema, table}] {
		d.relations[oid] = nil
		if _, ours := d.own[oid]; ours {
			d.relations[oid] = &plan{schema: schema, table: table, renamed: true}
		}
		return nil
	}
	p := &plan{schema: schema, table: table, want: make([]int16, len(columns))}
	for i := range p.want {
		p.want[i] = absent
	}
	if err := p.resolve(d, columns, d.relations[oid]); err != nil {
		err.Relation = true
		return p.inTable(err)
	}
	p.partitionKey(d.partitioned[oid], columns)
	d.relations[oid] = p
	return nil
}

// readColumns grows its result with what it reads, not by the stated count.
func (d *Decoder) readColumns(r *reader) []column {
	var columns []column
	for range r.uint16() {
		r.byte() // 1 if it is part of the key
		c := column{name: string(r.cstring()), declared: r.uint32()}
		c.oid = d.types[c.declared].resolve(c.declared)
		r.uint32() // the type modifier
		if r.cut {
			return nil
		}
		columns = append(columns, c)
	}
	return columns
}

// resolve finds the wanted columns by name and checks their types. before is the plan that the
// relation had until now; nil = none. A column that the settings name must not go: it was renamed,
// or they are old.
func (p *plan) resolve(d *Decoder, columns []column, before *plan) *Error {
	for l, rule := range contract {
		name, mapped := d.columns[rule.name]
		if !mapped {
			name = rule.name
		}
		had := mapped && before != nil && !before.renamed && before.logical[l] != absent
		slot, err := p.slot(columns, name, rule.required || d.mustHave[rule.name] || had)
		if err != nil {
			return err
		}
		p.logical[l] = slot
		if slot == absent {
			continue
		}
		if c := p.columns[slot]; !rule.accepts(c.declared, c.oid) {
			err := fault("column %q has type %s, want %s", name, typeText(c.declared), rule.want)
			err.Column = name
			return err
		}
	}
	for _, name := range d.extra {
		slot, err := p.slot(columns, name, true)
		if err != nil {
			return err
		}
		p.extra = append(p.extra, slot)
	}
	return nil
}

// slot returns the slot of the column of that name. It makes one if there is none.
func (p *plan) slot(columns []column, name string, required bool) (int16, *Error) {
	i := slices.IndexFunc(columns, func(c column) bool { return c.name == name })
	switch {
	case i < 0 && !required:
		return absent, nil
	case i < 0:
		err := fault("required column %q is missing (columns: %s)", name, list(columns))
		err.Column = name
		return absent, err
	case p.want[i] == absent:
		p.want[i] = int16(len(p.columns))
		p.columns = append(p.columns, columns[i])
	}
	return p.want[i], nil
}

// list names the columns of a relation for an error, at most 32 of them.
func list(columns []column) string {
	const most = 32
	if len(columns) == 0 {
		return "none"
	}
	var names []string
	for _, c := range columns[:min(len(columns), most)] {
		names = append(names, c.name)
	}
	if len(columns) > most {
		names = append(names, "...")
	}
	return strings.Join(names, ", ")
}

// inTable adds the table to an error. A nil plan is that of another table.
func (p *plan) inTable(err *Error) *Error {
	if p != nil {
		err.Schema, err.Table = p.schema, p.table
	}
	return err
}

// null is the error of a required column without a value.
func (p *plan) null(l logical) *Error {
	name := p.columns[p.logical[l]].name
	what := "NULL"
	if l == colAggregateID {
		what = "NULL or empty"
	}
	err := fault("column %q is %s", name, what)
	err.Column = name
	return err
}
