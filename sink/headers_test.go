package sink

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/decoder"
)

func TestHeadersThatBreakTheContract(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		``, ` `, `[]`, `["a"]`, `"a"`, `1`, `true`, `{`, `{"a"}`, `{"a":"b"`, `{"a":"b",}`, `{"a":}`, `{"a":,}`, `{"a":1`, `{"a":1,}`,
		`nul`, `nullx`, `null null`, `NULL`, `[null]`, `{null:"a"}`, `{"a":nullx}`, `{"a":null`, `{"a":nul}`, `{"a":null,}`,
		`{"a":"b"} x`, `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"b}`, "{\"a\":\"\x01\"}", `{a:"b"}`, `{"a":"b"}}`, `{"a":"\`,
		`{"a":True}`, `{"a":01}`, `{"a":1.}`, `{"a":+1}`, `{"a":NaN}`, `{"a":b}`, `{"a":1 2}`, `{"a":tru e}`,
		`{"a":{"b":"c"}`, `{"a":["b"}`, `{"a":{"b":}}`, `{"a":[1,]}`, `{"a":["\`, `{"a":[}]}`, `{"a":[1]]}`, `{"a":{]}`, "{\"a\":[\"\x01\"]}",
		`{"a":` + strings.Repeat("[", 1<<16) + strings.Repeat("]", 1<<16) + `}`,
	} {
		if h, _, err := appendHeaders(nil, []byte(bad), make([]byte, len(bad)), func(b []byte) string { return string(b) }); err == nil {
			t.Errorf("%.80q was read as %.80q", bad, headerText(h))
		}
	}
}

// TestHeadersWithNamesOfOurs: a consumer that reads the last header of a name must get walpost's.
func TestHeadersWithNamesOfOurs(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	b := newBuilder()
	b.sink = &Sink{log: zerolog.New(&log)}
	build := func(headers string, typed bool) string {
		e := &decoder.Event{Schema: "public", Table: "outbox", ID: []byte("e1"), Key: []byte("k"), HasType: typed, Type: []byte("Placed"), Headers: []byte(headers)}
		f, err := b.build(e, Transaction{}, orders(), noMark{})
		if err != nil {
			t.Fatal(err)
		}
		return headerText(f.record.Headers)
	}
	const pos = "pos=00000000-0000000000000000-00000000"
	if got, want := build(`{"a": "1", "pos": "x", "id": null, "type": 7, "source": {"id": 1}, "Id": "2"}`, true),
		"id=e1 type=Placed source=7/walpost "+pos+" a=1 Id=2"; got != want {
		t.Errorf("headers are\n%s, want\n%s", got, want)
	}
	// Without a column of that name walpost writes no type, and the row's is the only one.
	if got, want := build(`{"type": "own", "id": "x"}`, false), "id=e1 source=7/walpost "+pos+" type=own"; got != want {
		t.Errorf("headers are\n%s, want\n%s", got, want)
	}
	if lines := strings.Count(log.String(), "\n"); lines != 1 || !strings.Contains(log.String(), `"headers":["pos","id","type","source"]`) {
		t.Errorf("the log tells of it in %d lines:\n%s", lines, log.String())
	}
}

// FuzzHeaders compares the parser with encoding/json, on what both take for headers.
func FuzzHeaders(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":"b"}`, ` { "a" : "b" , "a" : "\u00e9\ud83d\ude00\ud800x" } `, `{"":"\"\\\/\b\f\n\r\t"}`, `{"a":1}`, `{"a":[{"b":"]"},-0.1e5],"c":true}`, `{"ü":"\ud800\ud800"}`, `null`, `{"a":null,"b":"c"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		got, _, err := appendHeaders(nil, object, make([]byte, len(object)), func(b []byte) string { return string(b) })
		if strings.ToValidUTF8(string(object), "") != string(object) {
			return // encoding/json replaces what is not UTF-8; we pass it on unchanged
		}
		want, wantErr := headersByTheBook(object)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, but encoding/json says %v", object, err, wantErr)
		}
		if err == nil && headerText(got) != headerText(want) {
			t.Fatalf("%q: read as %q, encoding/json reads %q", object, headerText(got), headerText(want))
		}
	})
}

// headersByTheBook reads headers with encoding/json.
func headersByTheBook(object []byte) ([]kgo.RecordHeader, error) {
	if !json.Valid(object) {
		return nil, errHeaders
	}
	d := json.NewDecoder(bytes.NewReader(object))
	if first, err := d.Token(); first == nil || err != nil {
		return nil, err
	} else if first != json.Delim('{') {
		return nil, errHeaders
	}
	var headers []kgo.RecordHeader
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, err
		}
		h := kgo.RecordHeader{Key: key.(string), Value: value}
		var text *string
		if json.Unmarshal(value, &text) == nil {
			if h.Value = nil; text != nil {
				h.Value = []byte(*text)
			}
		}
		headers = append(headers, h)
	}
	return headers, nil
}
