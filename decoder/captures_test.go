package decoder

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

func ptr(s string) *string { return &s }

func outboxRow(index uint32, id, aggregateType, key string, typ, payload, headers *string) goldRow {
	return goldRow{
		Table: "public.outbox", Index: index, ID: "00000000-0000-4000-8000-0000000000" + id,
		AggregateType: aggregateType,
		Key:           key, HasType: true, Type: typ, Payload: payload, Headers: headers,
	}
}

// captured is what the workload put into the outbox tables, written down by
// hand: the same for all versions and both formats.
func captured(format string) []goldRow {
	rows := []goldRow{
		outboxRow(0, "01", "order", "o-1", ptr("created"), ptr(`{"n": 1}`), nil),
		outboxRow(0, "02", "order", "o-1", nil, nil, nil),
		outboxRow(0, "03", "order", "o-2", ptr(""), ptr(`{"a": [1.50, null], "b": 1}`),
			ptr(`{"x": "y", "traceparent": "00-4bf9-00"}`)),
		outboxRow(0, "04", "Bestellung", "schlüssel-✓-𝄞", ptr("größe"), ptr(`{"k": "日本語"}`), nil),
		outboxRow(0, "05", "order", "kept", ptr("a"), ptr("1"), nil),
		outboxRow(1, "06", "order", "kept", ptr("c"), ptr("3"), nil),
		outboxRow(1, "07", "order", "mixed", ptr("at index 1"), ptr("{}"), nil),
		{
			Table: "public.outbox_bytes", Index: 6, ID: "9223372036854775807", AggregateType: "raw", Key: "-7",
			Payload: ptr("hex:00ff5c27"),
		},
		outboxRow(10, "08", "order", "mixed", ptr("at index 10"), ptr("{}"), nil),
		{Table: "public.outbox_bytes", ID: "-1", Key: "0", Payload: ptr("")},
		outboxRow(0, "09", "order", "ddl", ptr("before"), ptr("{}"), ptr(`{"h": "1"}`)),
		outboxRow(1, "0a", "order", "ddl", ptr("after"), ptr("{}"), ptr(`{"h": "2"}`)),
		{Table: "public.outbox_bytes", ID: "3", AggregateType: "raw", Key: "2", Payload: ptr("hex:deadbeef")},
		{Table: "public.outbox_bytes", Index: 1, ID: "4", AggregateType: "raw", Key: "2"},
	}
	if format == "text" {
		rows = append(rows, goldRow{
			Table: "public.outbox_enum", ID: "-5", AggregateType: "invoice", Key: "i-1",
			Payload: ptr(`{"a":1,  "a":2, "z":"\u0000"}`),
		})
	}
	part := goldRow{Table: "public.outbox_part", ID: "12", AggregateType: "one  ", Key: "p-1", HasType: true}
	part.Type, part.Payload = ptr("t"), ptr("plain text")
	rows = append(rows, part)
	part.Index, part.ID, part.Type, part.Payload = 1, "13", ptr("f"), ptr("")
	rows = append(rows, part)
	part.Index, part.ID, part.Key, part.Type, part.Payload = 0, "-14", "p-2", nil, nil
	return append(rows, part)
}

// TestUpdate captures the testdata anew; it does nothing without -update.
// It is not parallel, so that it comes before the tests that read the files.
func TestUpdate(t *testing.T) {
	if !*update {
		t.Skip("only with -update")
	}
	for _, major := range majors {
		version, streams := capture(t, major)
		for _, format := range formats {
			writeCapture(t, version, major, format, streams[format])
		}
	}
}

func TestCapturesMatchGolden(t *testing.T) {
	t.Parallel()
	eachCapture(t, func(t *testing.T, major int, format string, messages [][]byte) {
		want, err := os.ReadFile(capturePath(major, format, "json"))
		if err != nil {
			t.Fatal(err)
		}
		if got := golden(t, format, messages); !bytes.Equal(got, want) {
			gotLines, wantLines := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
			for i := range min(len(gotLines), len(wantLines)) {
				if gotLines[i] != wantLines[i] {
					t.Fatalf("message %d\n got %s\nwant %s", i, gotLines[i], wantLines[i])
				}
			}
			t.Fatalf("%d lines, want %d", len(gotLines), len(wantLines))
		}
	})
}

func TestCapturesHoldTheWorkload(t *testing.T) {
	t.Parallel()
	eachCapture(t, func(t *testing.T, _ int, format string, messages [][]byte) {
		changes, err := decodeAll(captureConfig(format), messages)
		if err != nil {
			t.Fatal(err)
		}
		want := captured(format)
		kinds := map[string]int{}
		for _, c := range changes {
			kinds[c.Message]++
			if c.Event == nil {
				continue
			}
			if len(want) == 0 {
				t.Fatalf("event beyond the workload: %+v", *c.Event)
			}
			if !reflect.DeepEqual(*c.Event, want[0]) {
				t.Fatalf("\n got %s\nwant %s", show(*c.Event), show(want[0]))
			}
			want = want[1:]
		}
		if len(want) != 0 {
			t.Errorf("events missing: %d, the first is %s", len(want), show(want[0]))
		}
		if kinds["B"] != kinds["C"] {
			t.Errorf("%d transactions begin, %d end", kinds["B"], kinds["C"])
		}
		for _, message := range "BCRIUDTYOM" {
			if kinds[string(message)] == 0 {
				t.Errorf("the capture has no %c message", message)
			}
		}
	})
}

// The list of tables must not move the index of an event.
func TestIndexDoesNotDependOnTables(t *testing.T) {
	t.Parallel()
	eachCapture(t, func(t *testing.T, _ int, format string, messages [][]byte) {
		changes, err := decodeAll(Config{Tables: []Table{{"public", "outbox_bytes"}}}, messages)
		if err != nil {
			t.Fatal(err)
		}
		var want, got []goldRow
		for _, row := range captured(format) {
			if row.Table == "public.outbox_bytes" {
				want = append(want, row)
			}
		}
		for _, c := range changes {
			if c.Event != nil {
				got = append(got, *c.Event)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %d rows, want %d: %+v", len(got), len(want), got)
		}
	})
}

func TestEnumInBinaryFormIsAnError(t *testing.T) {
	t.Parallel()
	for _, major := range majors {
		_, err := decodeAll(captureConfig("text"), loadCapture(t, major, "binary"))
		if err == nil {
			t.Fatalf("%d: no error", major)
		}
		e := asError(t, err)
		if e.Table != "outbox_enum" || e.Column != "aggregatetype" || e.EventID != "-5" || e.CommitLSN == 0 ||
			!strings.Contains(e.Reason, "user-defined (oid ") {
			t.Errorf("%d: %+v", major, *e)
		}
	}
}

func show(row goldRow) string {
	text := func(s *string) string {
		if s == nil {
			return "nil"
		}
		return fmt.Sprintf("%q", *s)
	}
	return fmt.Sprintf("%+v type=%s payload=%s headers=%s", row, text(row.Type), text(row.Payload), text(row.Headers))
}
