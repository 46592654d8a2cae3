package decoder

import (
	"errors"
	"testing"
)

// TestRequiredColumns: a column that an event can do without is one that a table must have if the
// settings say so.
func TestRequiredColumns(t *testing.T) {
	t.Parallel()
	for _, required := range []bool{false, true} {
		cfg := outboxConfig
		cfg.Columns = map[string]string{"headers": "meta"}
		if required {
			cfg.Required = []string{"headers"}
		}
		d := New(cfg)
		decodeLast(t, d, beginMessage())
		_, err := d.Decode(outboxRelation())
		var bad *Error
		if errors.As(err, &bad) != required || required && (bad.Column != "meta" || !bad.Relation) {
			t.Errorf("required: %t, and the relation without the column is read with %v", required, err)
		}
		if required {
			continue
		}
		if change := decodeLast(t, d, outboxInsert("k")); change.Event == nil || change.Event.Headers != nil {
			t.Errorf("the row without the column is %+v", change.Event)
		}
	}
}

// TestMappedColumnLost: a column that the settings name was in the table, and is not any more. It
// was renamed or dropped, and the rows that follow must not be published without it. A column that
// is not there yet may have been added later, and one that the settings do not name may go.
func TestMappedColumnLost(t *testing.T) {
	t.Parallel()
	lost := relationMessage(outboxOID, "public", "outbox", without(outboxColumns, "headers")...)
	for name, c := range map[string]struct {
		columns map[string]string
		first   []byte
		refused bool
	}{
		"mapped, was there":     {map[string]string{"headers": "headers"}, outboxRelation(), true},
		"mapped, was not there": {map[string]string{"headers": "headers"}, lost, false},
		"not mapped":            {nil, outboxRelation(), false},
	} {
		cfg := outboxConfig
		cfg.Columns = c.columns
		d := New(cfg)
		decodeLast(t, d, beginMessage(), c.first)
		_, err := d.Decode(lost)
		var bad *Error
		if errors.As(err, &bad) != c.refused || c.refused && (bad.Column != "headers" || !bad.Relation) {
			t.Errorf("%s: the relation without the column is read with %v", name, err)
		}
	}
}
