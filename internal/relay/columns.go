package relay

import (
	"fmt"
	"slices"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/decoder"
)

// warnOfColumns names columns that no event can do without and that a table lacks. It is no reason
// to stop: the rows that come first may have been inserted when it had them.
func (r *Relay) warnOfColumns(view cdc.View) {
	required := slices.Clone(r.cfg.Topic.Extra())
	for _, logical := range []string{"id", "aggregatetype", "aggregateid", "payload"} {
		required = append(required, columnName(r.cfg.Columns, logical))
	}
	for _, t := range view.Tables {
		for _, column := range required {
			if !slices.ContainsFunc(t.Columns, func(c cdc.ColumnView) bool { return c.Name == column }) {
				r.log.Warn().Str("table", t.Schema+"."+t.Name).Str("column", column).
					Msg("the table has no such column now: its rows cannot be published (see WALPOST_COLUMNS and WALPOST_TOPIC)")
			}
		}
	}
}

// CheckTypes tells whether a column of an outbox table has a type that no event can be made of:
// better at a start than at the first row. columns maps the names of the contract to the tables'
// own. The error is a [*cdc.StopError].
func CheckTypes(columns map[string]string, view cdc.View) error {
	for _, t := range view.Tables {
		for _, logical := range contract {
			name := columnName(columns, logical)
			at := slices.IndexFunc(t.Columns, func(c cdc.ColumnView) bool { return c.Name == name })
			if at < 0 {
				continue
			}
			c := t.Columns[at]
			want, fits := decoder.Fits(logical, decoder.Type{OID: c.Type, Base: c.Holds(), Name: c.BaseName})
			if fits {
				continue
			}
			return &cdc.StopError{
				What: fmt.Sprintf("table %s.%s: column %q is of type %s, and %s must be %s", t.Schema, t.Name, name, c.TypeName, logical, want),
				Hint: fmt.Sprintf("name another column, as WALPOST_COLUMNS=%s=NAME, or give this one such a type (ALTER TABLE ... ALTER COLUMN ... TYPE ...); then start walpost", logical),
			}
		}
	}
	return nil
}

// warnOfLost names columns that events are made of, and that a table has lost since an earlier
// inspection: events go on without them, or stop at the next row.
func (r *Relay) warnOfLost(before, now cdc.View) {
	for _, t := range before.Tables {
		at := slices.IndexFunc(now.Tables, func(n cdc.TableView) bool { return n.OID == t.OID })
		if at < 0 {
			continue
		}
		for _, c := range t.Columns {
			gone := !slices.ContainsFunc(now.Tables[at].Columns, func(n cdc.ColumnView) bool { return n.Name == c.Name })
			if gone && slices.Contains(r.cfg.CDC.Columns, c.Name) {
				r.log.Warn().Str("table", t.Schema+"."+t.Name).Str("column", c.Name).
					Msg("the table has lost a column that events are made of: it was renamed or dropped (see WALPOST_COLUMNS)")
			}
		}
	}
}

// warn says once what may cost or repeat events although the relay works.
func (s *session) warn(view cdc.View) {
	for _, w := range view.Warnings(s.r.cfg.CDC) {
		if !s.said.warnings[w.What] {
			s.said.warnings[w.What] = true
			s.log.Warn().Str("what_to_do", w.Hint).Msg(w.What)
		}
	}
}

const byteaOID = 17

// wantsBinary reports whether columns should come in their binary form: the text form doubles a
// bytea, and the server cannot send one of half a gigabyte in it at all. Only if every wanted
// column has a binary form that we read.
func (s *session) wantsBinary(view cdc.View) bool {
	if s.text {
		return false
	}
	r := s.r
	wanted := map[string]bool{}
	for _, c := range r.cfg.CDC.Columns {
		wanted[c] = true
	}
	bytea := false
	for _, t := range view.Tables {
		for _, c := range t.Columns {
			if wanted[c.Name] && !decoder.BinarySafe(c.Holds()) {
				return false
			}
			bytea = bytea || (c.Name == columnName(r.cfg.Columns, "payload") && c.Holds() == byteaOID)
		}
	}
	return bytea
}

// contract lists the columns of the contract that events are made of, the id first.
var contract = []string{"id", "aggregatetype", "aggregateid", "type", "payload", "headers"}

// EventColumns are the columns that events are made of, as the tables name them: those of the
// contract, and those that the topic template names besides.
func EventColumns(mapping map[string]string, extra []string) []string {
	var names []string
	for _, logical := range contract {
		names = append(names, columnName(mapping, logical))
	}
	return append(names, extra...)
}

func columnName(mapping map[string]string, logical string) string {
	if own, ok := mapping[logical]; ok {
		return own
	}
	return logical
}
