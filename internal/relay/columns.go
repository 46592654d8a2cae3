package relay

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/decoder"
)

// unfit is why no event can be made of the rows that a table takes now, as the session found it.
// Rows of an earlier shape may still be in the WAL, and the settings may be right for those: an
// operator who renames a column starts walpost with its old name first. So the session goes on
// until all that was committed before is published, or until a row of the present shape comes.
type unfit struct {
	stop   *unfitError
	column string  // as the table should have it
	until  cdc.LSN // the end of the WAL when the table was inspected
}

// unfitError says that the settings do not fit a table. No row is missing in the stream.
type unfitError struct{ stop *cdc.StopError }

func (e *unfitError) Error() string { return e.stop.Error() }
func (e *unfitError) Unwrap() error { return e.stop }

// noteUnfit keeps what is wrong with the settings for the session, and says so once.
func (s *session) noteUnfit(view cdc.View) {
	stop, column := s.r.unfit(view)
	if stop == nil {
		return
	}
	s.unfit = &unfit{&unfitError{stop}, column, view.WALEnd}
	if !s.said.warnings[stop.What] {
		s.said.warnings[stop.What] = true
		s.log.Warn().Err(stop).Msg("the settings do not fit the table as it is now: " +
			"publishing what was inserted before, then stopping")
	}
}

// refuse ends the session of settings that do not fit once everything is published that may be of
// an earlier shape.
func (s *session) refuse(ctx context.Context) error {
	const often = 20 * time.Millisecond
	ticker := time.NewTicker(often)
	defer ticker.Stop()
	for {
		if pos, _, _ := s.watermark.Position(); pos.End >= s.unfit.until {
			return s.unfit.stop
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// presentRow reports whether a row that cannot be decoded has the present shape of a table that the
// settings do not fit.
func (s *session) presentRow(bad *decoder.Error) bool {
	return s.unfit != nil && bad.Relation && bad.Column == s.unfit.column
}

// unfit tells what is wrong with the settings as the tables are now; nil = nothing is.
func (r *Relay) unfit(view cdc.View) (stop *cdc.StopError, column string) {
	return checkColumns(r.cfg.Columns, r.cfg.Topic.Extra(), view)
}

// CheckColumns tells whether a table lacks a column that the settings name or that no event can do
// without, or has it with a type that no event can be made of. columns maps the names of the
// contract to the tables' own; extra are columns that the topic names besides. The error is a
// [*cdc.StopError].
func CheckColumns(columns map[string]string, extra []string, view cdc.View) error {
	if stop, _ := checkColumns(columns, extra, view); stop != nil {
		return stop
	}
	return nil
}

func checkColumns(columns map[string]string, extra []string, view cdc.View) (stop *cdc.StopError, column string) {
	for _, t := range view.Tables {
		for _, logical := range contract {
			name := columnName(columns, logical)
			_, mapped := columns[logical]
			if stop := checkColumn(t, logical, name, mapped); stop != nil {
				return stop, name
			}
		}
		for _, name := range extra {
			if findColumn(t, name) == nil {
				return &cdc.StopError{
					What: fmt.Sprintf("table %s.%s has no column %q, which "+
						"WALPOST_TOPIC names", t.Schema, t.Name, name),
					Hint: "name a column that it has in WALPOST_TOPIC, then start walpost. " + earlierShape,
				}, name
			}
		}
	}
	return nil, ""
}

// checkColumn tells what is wrong with a column of the contract, which a table should have under a
// name; nil = nothing is.
func checkColumn(t cdc.TableView, logical, name string, mapped bool) *cdc.StopError {
	table := t.Schema + "." + t.Name
	setting := logical + "=NAME in WALPOST_COLUMNS"
	c := findColumn(t, name)
	switch {
	case c == nil && mapped:
		return &cdc.StopError{
			What: fmt.Sprintf("table %s has no column %q, which WALPOST_COLUMNS names as its %s", table, name, logical),
			Hint: fmt.Sprintf("name the column that it has, as %s, then start walpost. %s", setting, earlierShape),
		}
	case c == nil && slices.Contains(required, logical):
		return &cdc.StopError{
			What: fmt.Sprintf("table %s has no column %q", table, name),
			Hint: fmt.Sprintf("if it has another name, give it as %s, then start walpost. %s", setting, earlierShape),
		}
	case c == nil:
		return nil
	}
	want, fits := decoder.Fits(logical, decoder.Type{OID: c.Type, Base: c.Holds(), Name: c.BaseName})
	if fits {
		return nil
	}
	return &cdc.StopError{
		What: fmt.Sprintf("table %s: column %q is of type %s, and %s "+
			"must be %s", table, name, c.TypeName, logical, want),
		Hint: fmt.Sprintf("name another column, as %s, or give this one such a type (ALTER TABLE ... ALTER "+
			"COLUMN ... TYPE ...), "+
			"then start walpost. %s", setting, earlierShape),
	}
}

// earlierShape says what a change of the settings means for rows that were inserted before it.
const earlierShape = "Rows from before a change of the table need the settings of that time: " +
	"docs/OPERATIONS.md#a-column-changed"

// columnHint says how to go on after a row that cannot be decoded.
func (r *Relay) columnHint(bad *decoder.Error) string {
	if !bad.Relation {
		return r.skipHint(bad.CommitLSN)
	}
	setting := "WALPOST_COLUMNS"
	if slices.Contains(r.cfg.Topic.Extra(), bad.Column) {
		setting = "WALPOST_TOPIC"
	}
	return fmt.Sprintf("set %s to the columns that the table had when this row was inserted, and start walpost: "+
		"it goes on with this row (docs/OPERATIONS.md#a-column-changed). If no column of that time fits: %s",
		setting, r.skipHint(bad.CommitLSN))
}

// requiredNow are optional columns of the contract that the settings name and that a table lacks. A
// row without one has the present shape, and must not be published without what the column should
// have given.
func (r *Relay) requiredNow(view cdc.View) []string {
	var names []string
	for logical, own := range r.cfg.Columns {
		lacks := func(t cdc.TableView) bool { return findColumn(t, own) == nil }
		if slices.Contains(contract, logical) && slices.ContainsFunc(view.Tables, lacks) {
			names = append(names, logical)
		}
	}
	return names
}

func findColumn(t cdc.TableView, name string) *cdc.ColumnView {
	at := slices.IndexFunc(t.Columns, func(c cdc.ColumnView) bool { return c.Name == name })
	if at < 0 {
		return nil
	}
	return &t.Columns[at]
}

// warnOfLost names columns that events are made of, and that a table has lost since an earlier
// inspection: events stop at the next row, or go on without a column that no setting names and that
// they can do without.
func (r *Relay) warnOfLost(before, now cdc.View) {
	for _, t := range before.Tables {
		at := slices.IndexFunc(now.Tables, func(n cdc.TableView) bool { return n.OID == t.OID })
		if at < 0 {
			continue
		}
		for _, c := range t.Columns {
			if findColumn(now.Tables[at], c.Name) == nil && slices.Contains(r.cfg.CDC.Columns, c.Name) {
				r.log.Warn().Str("table", t.Schema+"."+t.Name).Str("column", c.Name).
					Msg("the table has lost a column that events are made of: it was renamed or dropped " +
						"(see WALPOST_COLUMNS)")
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

// required are the columns of the contract that no event can do without.
var required = []string{"id", "aggregatetype", "aggregateid", "payload"}

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
