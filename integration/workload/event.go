package workload

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// aggregate is one entity; its events share a key.
type aggregate struct {
	kind   string
	number int
}

// key is the aggregateid. Some are not ASCII.
func (a aggregate) key() string {
	if a.number%7 == 3 {
		return fmt.Sprintf("%d-Größe-日本-🚚", a.number)
	}
	return fmt.Sprintf("%d", a.number)
}

// name identifies the aggregate across all types.
func (a aggregate) name() string { return a.kind + "/" + a.key() }

// row is one event as it is inserted.
type row struct {
	id        uuid.UUID
	aggregate aggregate
	kind      string
	payload   *string // JSON; nil is a tombstone
	headers   string  // JSON object of strings
}

func (r row) values() []any {
	return []any{r.id, r.aggregate.kind, r.aggregate.key(), r.kind, r.payload, r.headers}
}

// largePayload is the size of the large ones.
const largePayload = 200 << 10

// event makes up the content. The number is among the headers too, so that a tombstone can be told
// apart.
func (w *writer) event(a aggregate, seq int64) row {
	r := row{id: uuid.New(), aggregate: a, kind: a.kind + "-changed"}
	headers := map[string]string{"agg": a.name(), "seq": fmt.Sprint(seq)}
	if w.random.IntN(2) == 0 {
		headers["traceparent"] = fmt.Sprintf("00-%016x%016x-%016x-01", w.random.Uint64(), w.random.Uint64(),
			w.random.Uint64())
	}
	if w.random.IntN(20) == 0 {
		headers["grüße"] = "aus \"Köln\"\n\\ 🙂"
	}
	r.headers = mustJSON(headers)
	if w.random.IntN(25) == 0 {
		r.kind, r.payload = a.kind+"-deleted", nil
		return r
	}
	payload := map[string]any{
		"agg": a.name(), "seq": seq,
		"amount": json.Number(fmt.Sprintf("%d.%02d0", w.random.IntN(1000), w.random.IntN(100))),
		"note":   w.note(), "lines": []any{1, nil, true, map[string]any{"b": "", "a": "\u2028"}},
	}
	if !w.w.opts.NoLarge && w.random.IntN(500) == 0 {
		payload["blob"] = strings.Repeat("0123456789abcdé ", largePayload/17)
	}
	text := mustJSON(payload)
	r.payload = &text
	return r
}

func (w *writer) note() string {
	notes := []string{
		"", "plain", "ünïcödé", "日本語", "emoji 🚚🙂", "quote \" and \\ backslash", "line\nfeed\ttab",
		strings.Repeat("x", 300),
	}
	return notes[w.random.IntN(len(notes))]
}

// mustJSON encodes what is made of strings and numbers, which cannot fail.
func mustJSON(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return "null"
	}
	return string(text)
}
