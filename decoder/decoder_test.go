package decoder

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"
)

// decodeLast decodes messages and returns the change of the last one.
func decodeLast(t testing.TB, d *Decoder, messages ...[]byte) Change {
	t.Helper()
	var change Change
	for i, message := range messages {
		var err error
		if change, err = d.Decode(message); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	return change
}

func TestTransaction(t *testing.T) {
	t.Parallel()
	d := New(outboxConfig)
	begin := Change{Kind: Begin, CommitLSN: testLSN, CommitTime: 77, XID: 42}
	if got := decodeLast(t, d, beginMessage()); got != begin {
		t.Errorf("begin: got %+v, want %+v", got, begin)
	}
	if got := decodeLast(t, d, otherRelation()); got != (Change{}) {
		t.Errorf("relation: got %+v, want nothing", got)
	}
	if got := decodeLast(t, d, insertMessage(otherOID, txt("1"), null)); got != (Change{}) {
		t.Errorf("insert into another table: got %+v, want nothing", got)
	}
	got, want := decodeLast(t, d, commitMessage(testLSN, testLSN+48)),
		Change{Kind: Commit, CommitLSN: testLSN, EndLSN: testLSN + 48, CommitTime: 77}
	if got != want {
		t.Errorf("commit: got %+v, want %+v", got, want)
	}
}

func TestRelationSentAgainMovesColumns(t *testing.T) {
	t.Parallel()
	d := New(outboxConfig)
	decodeLast(t, d, beginMessage(), outboxRelation(), outboxInsert("first"))
	e := decodeLast(t, d, relationMessage(outboxOID, "public", "outbox",
		col{"headers", oidJSON}, col{"new", oidText}, col{"payload", oidText}, col{"aggregateid", oidText},
		col{"aggregatetype", oidVarchar}, col{"id", oidText}),
		insertMessage(outboxOID, txt("{}"), unchanged, txt("body"), txt("key"), txt("agg"), txt("id"))).Event
	want := goldRow{
		Table: "public.outbox", Index: 1, ID: "id", AggregateType: "agg", Key: "key",
		Payload: ptr("body"), Headers: ptr("{}"),
	}
	if got := *copyRow(e); !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %s\nwant %s", show(got), show(want))
	}
	// The table may also get another name, and its own again.
	renamed := relationMessage(outboxOID, "public", "renamed", outboxColumns...)
	if got := decodeLast(t, d, renamed, outboxInsert("k")); got.Event != nil {
		t.Errorf("row of a renamed table is an event: %+v", got.Event)
	}
	if got := decodeLast(t, d, outboxRelation(), outboxInsert("k")); got.Event == nil || got.Event.Index != 3 {
		t.Errorf("got %+v, want an event with index 3", got)
	}
}

// TestRenamedTable: a row of a table that is known to be the outbox is not skipped because the
// table had another name.
func TestRenamedTable(t *testing.T) {
	t.Parallel()
	cfg := outboxConfig
	cfg.Own = map[uint32]Table{outboxOID: {"public", "outbox"}}
	d := New(cfg)
	aside := relationMessage(outboxOID, "public", "aside", outboxColumns...)
	got := decodeLast(t, d, beginMessage(), aside, updateMessage(outboxOID, null), outboxRelation(), outboxInsert("k"))
	if got.Event == nil || got.Event.Index != 1 {
		t.Errorf("got %+v, want an event", got)
	}
	decodeLast(t, d, aside)
	_, err := d.Decode(outboxInsert("k"))
	const reason = `outbox table "public"."outbox" had this name`
	if e := asError(t, err); e.Table != "aside" || e.CommitLSN != testLSN || !strings.Contains(e.Reason, reason) {
		t.Errorf("got %v", err)
	}
}

func TestMappedAndExtraColumns(t *testing.T) {
	t.Parallel()
	d := New(Config{
		Tables:  []Table{{"Odd Schema", "Out.Box"}, {"pg_catalog", "box"}},
		Columns: map[string]string{"aggregateid": "Key", "aggregatetype": "kind", "type": "kind", "created_at": "gone"},
		Extra:   []string{"tenant", "id", "empty"},
	})
	columns := []col{
		{"tenant", oidInt8},
		{"empty", oidText},
		{"payload", oidJSON},
		{"kind", 16500},
		{"Key", oidBytea},
		{"id", oidInt2},
		{"aggregateid", oidText},
	}
	fields := []field{
		null, txt(""), bin("{}"), txt("k"), bin("\x00\xff"), bin("\xff\xfe"), txt("not the key"),
	}
	for _, schema := range []string{"Odd Schema", ""} { // an empty schema is pg_catalog
		table := map[string]string{"Odd Schema": "Out.Box", "": "box"}[schema]
		messages := [][]byte{
			beginMessage(), relationMessage(1, schema, table, columns...), insertMessage(1, fields...),
		}
		if decodeLast(t, New(Config{Tables: []Table{{"x", "y"}}}), messages...).Event != nil {
			t.Fatalf("row of table %s.%s is an event without being configured", schema, table)
		}
		e := decodeLast(t, d, messages...).Event
		if e == nil {
			t.Fatalf("row of table %s.%s is no event", schema, table)
		}
		if string(e.Key) != `\x00ff` || string(e.AggregateType) != "k" || string(e.Type) != "k" ||
			string(e.ID) != "-2" {
			t.Errorf("got %s", show(*copyRow(e)))
		}
		if e.Extra[0] != nil || string(e.Extra[1]) != "-2" || e.Extra[2] == nil || len(e.Extra[2]) != 0 {
			t.Errorf("extra columns %q, want nil, -2 and empty", e.Extra)
		}
		decodeLast(t, d, commitMessage(testLSN, testLSN+1))
	}
	_, err := d.Decode(relationMessage(1, "Odd Schema", "Out.Box", without(columns, "tenant")...))
	if e := asError(t, err); e.Column != "tenant" || e.Table != "Out.Box" {
		t.Errorf("got %v, want an error about the column tenant", err)
	}
}

func TestIndexCountsEveryRowChange(t *testing.T) {
	t.Parallel()
	d := New(outboxConfig)
	e := decodeLast(t, d, beginMessage(), otherRelation(), outboxRelation(),
		insertMessage(otherOID, txt("1"), null), updateMessage(otherOID, txt("1"), unchanged),
		updateMessage(outboxOID, null), deleteMessage(otherOID, txt("1"), null),
		[]byte("T\x00\x00\x00\x01\x00\x00\x00\x00\xc8"),
		[]byte("M\x01\x00\x00\x00\x00\x00\x00\x00\x09p\x00\x00\x00\x00\x02ab"),
		outboxRelation(), outboxInsert("k")).Event
	if e.Index != 4 {
		t.Errorf("index %d, want 4", e.Index)
	}
	e = decodeLast(t, d, commitMessage(testLSN, testLSN+8), beginAt(testLSN+8), outboxInsert("k")).Event
	if e.Index != 0 {
		t.Errorf("index %d in the next transaction, want 0", e.Index)
	}
	d.rows = math.MaxUint32
	if e = decodeLast(t, d, outboxInsert("k")).Event; e.Index != math.MaxUint32 {
		t.Errorf("index %d, want the largest", e.Index)
	}
	_, err := d.Decode(outboxInsert("k"))
	if err == nil || !strings.Contains(err.Error(), "more than 4294967296 row changes") {
		t.Errorf("got %v, want an error about too many rows", err)
	}
}

// NULL is nil and an empty value is not, in both forms.
func TestNullAndEmpty(t *testing.T) {
	t.Parallel()
	for _, form := range []byte{'t', 'b'} {
		for _, typed := range []uint32{oidText, oidBytea} {
			d := New(outboxConfig)
			columns := with(with(outboxColumns, "payload", typed), "id", oidText)
			relation := relationMessage(outboxOID, "public", "outbox", columns...)
			empty := field{form: form}
			if form == 't' && typed == oidBytea {
				empty.data = `\x`
			}
			e := decodeLast(t, d, beginMessage(), relation,
				insertMessage(outboxOID, txt(""), txt(""), txt("k"), field{form: form}, empty, null, null)).Event
			if e.ID == nil || e.AggregateType == nil || e.Type == nil ||
				e.Payload == nil || len(e.Payload) != 0 || e.Headers != nil {
				t.Errorf("form %c, type %d: empty values became %s", form, typed, show(*copyRow(e)))
			}
			e = decodeLast(t, d, insertMessage(outboxOID, txt(""), txt(""), txt("k"), null, null, null, null)).Event
			if e.Type != nil || !e.HasType || e.Payload != nil {
				t.Errorf("form %c, type %d: NULL became %s", form, typed, show(*copyRow(e)))
			}
		}
	}
}

// A borrowed value cannot be used to write over what lies behind it.
func TestBorrowedSlicesEndWithTheirValue(t *testing.T) {
	t.Parallel()
	message := outboxInsert("key")
	before := bytes.Clone(message)
	e := decodeLast(t, New(outboxConfig), beginMessage(), outboxRelation(), message).Event
	_ = append(e.Key, "overwritten"...)
	_ = append(e.Payload, "overwritten"...)
	if !bytes.Equal(message, before) {
		t.Error("an append to a value changed the message")
	}
}
