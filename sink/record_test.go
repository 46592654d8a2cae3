package sink

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/decoder"
)

type noMark struct{}

func (noMark) Done() {}

func newBuilder() *builder {
	return &builder{source: []byte("7/walpost"), interned: map[string]string{}}
}

func orders() *topic { return &topic{name: "orders"} }

// placed is an event of a usual shape and size.
func placed() *decoder.Event {
	return &decoder.Event{
		AggregateType: []byte("order"), Key: []byte("customer-17"),
		ID:   []byte("0191d2a0-5b0c-7b1e-9c43-3d8a4c1c9d10"),
		Type: []byte("OrderPlaced"), HasType: true, Payload: []byte(strings.Repeat("x", 400)),
		Headers: []byte(`{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}`),
	}
}

func headerText(headers []kgo.RecordHeader) string {
	var parts []string
	for _, h := range headers {
		value := "NULL"
		if h.Value != nil {
			value = string(h.Value)
		}
		parts = append(parts, h.Key+"="+value)
	}
	return strings.Join(parts, " ")
}

func TestRecordLayout(t *testing.T) {
	t.Parallel()
	txn := Transaction{Timeline: 0xA, Commit: 0x16B3748, Read: time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC)}
	pos := "0000000A-00000000016B3748-0000001F"
	tests := []struct {
		name    string
		event   decoder.Event
		value   []byte
		headers string
	}{
		{
			name: "all columns",
			event: decoder.Event{
				Type: []byte("Placed"), HasType: true, Payload: []byte(`{"a": 1}`),
				Headers: []byte(`{"z": "1", "a": "ü\"\n"}`),
			},
			value:   []byte(`{"a": 1}`),
			headers: "id=e1 type=Placed source=7/walpost pos=" + pos + " z=1 a=ü\"\n",
		}, {
			name:    "no type column, tombstone",
			event:   decoder.Event{},
			headers: "id=e1 source=7/walpost pos=" + pos,
		}, {
			name:    "type NULL, empty payload",
			event:   decoder.Event{HasType: true, Payload: []byte{}, Headers: []byte("{}")},
			value:   []byte{},
			headers: "id=e1 type=NULL source=7/walpost pos=" + pos,
		}, {
			name:    "headers are JSON null, payload is JSON null and no tombstone",
			event:   decoder.Event{Payload: []byte("null"), Headers: []byte(" null ")},
			value:   []byte("null"),
			headers: "id=e1 source=7/walpost pos=" + pos,
		}, {
			name:    "a header is JSON null",
			event:   decoder.Event{Headers: []byte(`{"a": null, "b": "null", "c": "", "d":null}`)},
			headers: "id=e1 source=7/walpost pos=" + pos + " a=NULL b=null c= d=NULL",
		}, {
			name: "values that are no strings, as they are stored",
			event: decoder.Event{Headers: []byte(`{"n": -1.50e+2, "t": true, "f":false,` +
				`"o": {"b": ["]}\"", null], "a": 1}, "l":[ ], "z": 0}`)},
			headers: "id=e1 source=7/walpost pos=" + pos +
				` n=-1.50e+2 t=true f=false o={"b": ["]}\"", null], "a": 1} l=[ ] z=0`,
		}, {
			name:    "more headers than fit in the flight",
			event:   decoder.Event{Headers: []byte(`{"a":"","b":"2","c":"3","d":"4"}`)},
			headers: "id=e1 source=7/walpost pos=" + pos + " a= b=2 c=3 d=4",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.event.ID, tt.event.Key, tt.event.Index = []byte("e1"), []byte("k"), 31
			f, err := newBuilder().build(&tt.event, txn, orders(), noMark{})
			if err != nil {
				t.Fatal(err)
			}
			r := f.record
			if r.Topic != "orders" || string(r.Key) != "k" ||
				(r.Value == nil) != (tt.value == nil) || string(r.Value) != string(tt.value) {
				t.Errorf("record is topic %q key %q value %v", r.Topic, r.Key, r.Value)
			}
			if !r.Timestamp.Equal(txn.Read) {
				t.Errorf("timestamp is %s, want %s, when the event was read", r.Timestamp, txn.Read)
			}
			if got := headerText(r.Headers); got != tt.headers {
				t.Errorf("headers are\n%s, want\n%s", got, tt.headers)
			}
		})
	}
}

// TestFewNamesAreInterned: header names without end do not take memory without end.
func TestFewNamesAreInterned(t *testing.T) {
	t.Parallel()
	b := newBuilder()
	for i := range 3 * maxInterned {
		b.intern(fmt.Append(nil, i))
	}
	if n := len(b.interned); n != maxInterned {
		t.Errorf("%d names are kept, want %d", n, maxInterned)
	}
}

// TestRecordOwnsItsBytes overwrites the event after the record was made, as the decoder does with
// the next message.
func TestRecordOwnsItsBytes(t *testing.T) {
	t.Parallel()
	b := newBuilder()
	scratch := []byte("id-1key1pay1{\"h\":\"v1\"}")
	event := func() *decoder.Event {
		return &decoder.Event{ID: scratch[0:4], Key: scratch[4:8], Payload: scratch[8:12], Headers: scratch[12:]}
	}
	first, err := b.build(event(), Transaction{}, orders(), noMark{})
	if err != nil {
		t.Fatal(err)
	}
	before := headerText(first.record.Headers) + string(first.record.Key) + string(first.record.Value)
	copy(scratch, "id-2key2pay2{\"h\":\"v2\"}")
	for range 1000 { // into the same arena, and beyond it
		if _, err := b.build(event(), Transaction{Commit: 9}, orders(), noMark{}); err != nil {
			t.Fatal(err)
		}
	}
	after := headerText(first.record.Headers) + string(first.record.Key) + string(first.record.Value)
	if after != before {
		t.Fatalf("the record changed from %q to %q", before, after)
	}
}

// TestMemoryIsUsedAgain: what published events have freed serves later ones, and never what is
// still in flight. Not parallel: the memory is shared by all sinks.
func TestMemoryIsUsedAgain(t *testing.T) {
	b, to := newBuilder(), orders()
	type sent struct {
		f    *flight
		text string
	}
	text := func(f *flight) string {
		return headerText(f.record.Headers) + string(f.record.Key) + string(f.record.Value)
	}
	var inFlight []sent
	random := rand.New(rand.NewPCG(1, 2))
	before := map[*slab]bool{}
	reused := 0
	for i := range 50_000 {
		e := &decoder.Event{ID: fmt.Append(nil, "id", i), Key: fmt.Append(nil, i%7)}
		e.Payload = bytes.Repeat([]byte{byte('a' + i%26)}, random.IntN(3000))
		if i%50 == 0 {
			e.Payload = bytes.Repeat([]byte{byte('a' + i%26)}, arenaSize+random.IntN(arenaSize))
		}
		f, err := b.build(e, Transaction{Commit: uint64(i)}, to, noMark{})
		if err != nil {
			t.Fatal(err)
		}
		if f.slab.used == 1 {
			if before[f.slab] {
				reused++
			}
			before[f.slab] = true
		}
		inFlight = append(inFlight, sent{f, text(f)})
		for len(inFlight) > 300 { // published in any order
			at := random.IntN(len(inFlight))
			s := inFlight[at]
			if got := text(s.f); got != s.text {
				t.Fatalf("the record of event %d was %.80q and is %.80q", s.f.commit, s.text, got)
			}
			s.f.free()
			inFlight[at] = inFlight[len(inFlight)-1]
			inFlight = inFlight[:len(inFlight)-1]
		}
	}
	if reused == 0 {
		t.Error("nothing was used again")
	}
}

// TestBlockClasses: each size has a block that holds it with little left over, and the class of
// that block is the one of its size.
func TestBlockClasses(t *testing.T) {
	t.Parallel()
	last := 0
	for n := smallestBlock + 1; n < 256<<20; n += 1 + n/1000 {
		class, size := blockClass(n)
		again, whole := blockClass(size)
		if size < n || size > n+n/4+4 || again != class || whole != size || class < last || class >= blockClasses {
			t.Fatalf("%d bytes: class %d of %d bytes, whose own is class %d of %d", n, class, size, again, whole)
		}
		last = class
	}
	if last != blockClasses-1 {
		t.Errorf("the last class that is used is %d of %d", last, blockClasses)
	}
}

func TestBuildAllocatesNothing(t *testing.T) {
	b, to := newBuilder(), orders()
	e := placed()
	if n := testing.AllocsPerRun(20_000, func() {
		f, err := b.build(e, Transaction{}, to, noMark{})
		if err != nil {
			t.Fatal(err)
		}
		f.free()
	}); n > 0 {
		t.Fatalf("%v allocations an event, want less than one", n)
	}
}

func TestPosSortsAsText(t *testing.T) {
	t.Parallel()
	var all []string
	for _, timeline := range []uint32{1, 0x10, 0xFFFFFFFF} {
		for _, commit := range []uint64{0, 0xFF, 0x100000000, 1<<64 - 1} {
			for _, index := range []uint32{0, 9, 10, 0xFFFFFFFF} {
				all = append(all, string(appendPos(nil, Transaction{Timeline: timeline, Commit: commit}, index)))
			}
		}
	}
	if !slices.IsSorted(all) || len(all[0]) != posLength {
		t.Fatalf("not in order, or not %d long: %q", posLength, all)
	}
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	event := &decoder.Event{
		ID: []byte("e1"), Key: []byte("k1"), Type: []byte("Placed"), AggregateType: []byte("order"),
		Extra: [][]byte{[]byte("eu"), nil},
	}
	good := map[string]string{
		"outbox.event.{aggregatetype}": "outbox.event.order",
		"{aggregatetype}":              "order",
		"constant":                     "constant",
		"{type}-{aggregateid}_{id}":    "Placed-k1_e1",
		"{kind}.{region}":              "order.eu",
	}
	for text, want := range good {
		tpl, err := ParseTemplate(text, map[string]string{"aggregatetype": "kind"})
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got, err := tpl.append(nil, event); err != nil || string(got) != want {
			t.Errorf("%q is %q, %v, want %q", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "a b", "{", "}", "{}", "a{b", "a}b", "{a{b}}", "ü"} {
		if _, err := ParseTemplate(bad, nil); err == nil {
			t.Errorf("template %q was taken", bad)
		}
	}
	for _, illegal := range []struct{ template, kind string }{
		{"{aggregatetype}", "."},
		{"{aggregatetype}", ".."},
		{"{aggregatetype}", "a b"},
		{"{aggregatetype}", ""},
		{"{aggregatetype}", strings.Repeat("x", 250)},
		{"a.{aggregatetype}", "ü"},
		{"{other}", "x"},
	} {
		tpl, err := ParseTemplate(illegal.template, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := tpl.append(nil, &decoder.Event{AggregateType: []byte(illegal.kind), Extra: [][]byte{nil}})
		if err == nil {
			err = checkTopic(string(got))
		}
		if err == nil {
			t.Errorf("%q with %q became topic %q", illegal.template, illegal.kind, got)
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	builder, to := newBuilder(), orders()
	e := placed()
	b.ReportAllocs()
	for b.Loop() {
		f, err := builder.build(e, Transaction{}, to, noMark{})
		if err != nil {
			b.Fatal(err)
		}
		f.free()
	}
}
