package decoder

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "capture testdata anew from real servers of all versions")

var (
	majors  = []int{14, 15, 16, 17, 18}
	formats = []string{"text", "binary"}
)

// captureConfig names the outbox tables of the captured workload. The enum
// table is left out of the binary format, in which enums cannot be read.
func captureConfig(format string) Config {
	cfg := Config{Tables: []Table{{"public", "outbox"}, {"public", "outbox_bytes"}, {"public", "outbox_part"}}}
	if format == "text" {
		cfg.Tables = append(cfg.Tables, Table{"public", "outbox_enum"})
	}
	return cfg
}

func capturePath(major int, format, ext string) string {
	return filepath.Join("testdata", fmt.Sprintf("pg%d-%s.%s", major, format, ext))
}

// eachCapture runs a parallel subtest for every captured stream.
func eachCapture(t *testing.T, test func(t *testing.T, major int, format string, messages [][]byte)) {
	for _, major := range majors {
		for _, format := range formats {
			t.Run(fmt.Sprintf("%d-%s", major, format), func(t *testing.T) {
				t.Parallel()
				test(t, major, format, loadCapture(t, major, format))
			})
		}
	}
}

// loadCapture reads a file of one message a line, in hexadecimal.
func loadCapture(t testing.TB, major int, format string) (messages [][]byte) {
	t.Helper()
	content, err := os.ReadFile(capturePath(major, format, "hex"))
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if bytes.HasPrefix(lines.Bytes(), []byte("#")) {
			continue
		}
		message, err := hex.DecodeString(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, message)
	}
	if lines.Err() != nil || len(messages) == 0 {
		t.Fatalf("read %d messages: %v", len(messages), lines.Err())
	}
	return messages
}

func writeCapture(t *testing.T, version string, major int, format string, messages [][]byte) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# pgoutput protocol 1, %s, of PostgreSQL %s: one message a line\n", format, version)
	for _, m := range messages {
		fmt.Fprintf(&b, "%x\n", m)
	}
	writeFile(t, capturePath(major, format, "hex"), b.Bytes())
	writeFile(t, capturePath(major, format, "json"), golden(t, format, messages))
}

func writeFile(t *testing.T, path string, content []byte) {
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// change is a Change as the golden files show it.
type change struct {
	Message    string   `json:"message"`
	Kind       string   `json:"kind"`
	CommitLSN  string   `json:"commit_lsn,omitempty"`
	EndLSN     string   `json:"end_lsn,omitempty"`
	CommitTime int64    `json:"commit_time,omitempty"`
	XID        uint32   `json:"xid,omitempty"`
	Event      *goldRow `json:"event,omitempty"`
}

// goldRow is an Event that has been copied; a nil pointer is a nil slice.
type goldRow struct {
	Table         string   `json:"table"`
	Index         uint32   `json:"index"`
	ID            string   `json:"id"`
	AggregateType string   `json:"aggregatetype"`
	Key           string   `json:"key"`
	HasType       bool     `json:"has_type"`
	Type          *string  `json:"type"`
	Payload       *string  `json:"payload"`
	Headers       *string  `json:"headers"`
	Extra         []string `json:"extra,omitempty"`
}

// printable keeps text as it is and turns other bytes into hexadecimal.
func printable(b []byte) *string {
	if b == nil {
		return nil
	}
	s := string(b)
	if !utf8.Valid(b) {
		s = fmt.Sprintf("hex:%x", b)
	}
	return &s
}

func copyRow(e *Event) *goldRow {
	if e == nil {
		return nil
	}
	row := &goldRow{
		Table: e.Schema + "." + e.Table, Index: e.Index, ID: string(e.ID), AggregateType: string(e.AggregateType),
		Key: string(e.Key), HasType: e.HasType, Type: printable(e.Type), Payload: printable(e.Payload),
		Headers: printable(e.Headers),
	}
	for _, extra := range e.Extra {
		row.Extra = append(row.Extra, string(extra))
	}
	return row
}

func copyChange(message []byte, c Change) change {
	return change{
		Message: string(message[:1]), Kind: [...]string{"other", "begin", "commit", "insert"}[c.Kind],
		CommitLSN: lsn(c.CommitLSN), EndLSN: lsn(c.EndLSN),
		CommitTime: c.CommitTime, XID: c.XID, Event: copyRow(c.Event),
	}
}

func lsn(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%X/%X", n>>32, uint32(n))
}

// decodeAll decodes a whole stream.
func decodeAll(cfg Config, messages [][]byte) (changes []change, err error) {
	d := New(cfg)
	for _, message := range messages {
		c, err := d.Decode(message)
		if err != nil {
			return changes, err
		}
		changes = append(changes, copyChange(message, c))
	}
	return changes, nil
}

// golden is the content of a golden file: one change a line, as one array.
func golden(t *testing.T, format string, messages [][]byte) []byte {
	changes, err := decodeAll(captureConfig(format), messages)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for i, c := range changes {
		line, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(map[bool]string{true: "[\n", false: ",\n"}[i == 0])
		b.Write(line)
	}
	b.WriteString("\n]\n")
	return b.Bytes()
}

// asError returns the *Error that err must be.
func asError(t testing.TB, err error) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want an *Error", err)
	}
	return e
}
