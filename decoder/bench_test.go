package decoder

import (
	"strings"
	"testing"
)

// steady returns a Decoder in a transaction that knows its relations, and
// inserts of an outbox table in text form, in binary form, with a bytea
// payload in hexadecimal, and of a table of no interest.
func steady(t testing.TB) (*Decoder, map[string][]byte) {
	d := New(Config{Tables: []Table{{"public", "outbox"}, {"public", "bytes"}}, Extra: []string{"id"}})
	columns := with(with(outboxColumns, "payload", oidBytea), "aggregateid", oidInt8)
	decodeLast(t, d, beginMessage(), outboxRelation(), otherRelation(),
		relationMessage(300, "public", "bytes", columns...))
	const (
		uuid    = "\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10"
		created = "2026-01-01 00:00:00.123456+00"
		headers = `{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}`
	)
	json := `{"text": "` + strings.Repeat("x", 300) + `"}`
	return d, map[string][]byte{
		"text": insertMessage(outboxOID, txt("01234567-89ab-cdef-fedc-ba9876543210"), txt("order"), txt("order-4711"),
			txt("created"), txt(json), txt(headers), txt(created)),
		"binary": insertMessage(outboxOID, bin(uuid), bin("order"), bin("order-4711"), bin("created"), bin("\x01"+json),
			bin("\x01"+headers), bin("12345678")),
		"bytea": insertMessage(300, bin(uuid), txt("order"), bin("12345678"), null,
			txt(`\x`+strings.Repeat("5a", 300)), null, null),
		"other": insertMessage(otherOID, txt("1"), txt("paid")),
	}
}

func TestEventsDoNotAllocate(t *testing.T) {
	d, inserts := steady(t)
	commit, begin := commitMessage(testLSN, testLSN+48), beginMessage()
	for name, insert := range inserts {
		allocs := testing.AllocsPerRun(1000, func() {
			for _, message := range [][]byte{insert, commit, begin} {
				if _, err := d.Decode(message); err != nil {
					t.Fatal(err)
				}
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations an event, want none", name, allocs)
		}
	}
}

func BenchmarkInsert(b *testing.B) {
	d, inserts := steady(b)
	for name, insert := range inserts {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(insert)))
			for b.Loop() {
				d.rows = 0
				if _, err := d.Decode(insert); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
