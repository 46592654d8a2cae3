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
