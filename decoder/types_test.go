package decoder

import (
	"strings"
	"testing"
)

func typeMessage(oid uint32, schema, name string) []byte {
	return cstring(cstring(be.AppendUint32([]byte{'Y'}, oid), schema), name)
}

const (
	domainOID = 20001
	otherType = 20002
)

// TestDomains: the server names the type below a domain before each relation that has a column of
// it.
func TestDomains(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		column, schema, base string
		value, want          field
		fits                 bool
	}{
		"jsonb":                      {"payload", "", "jsonb", txt(`{"a": 1}`), txt(`{"a": 1}`), true},
		"jsonb in binary":            {"payload", "", "jsonb", bin("\x01{}"), txt("{}"), true},
		"bytea":                      {"payload", "", "bytea", txt(`\x00ff`), txt("\x00\xff"), true},
		"bytea in binary":            {"payload", "", "bytea", bin("\x00\xff"), txt("\x00\xff"), true},
		"xml":                        {"payload", "", "xml", txt("<a/>"), txt("<a/>"), true},
		"citext":                     {"payload", "public", "citext", txt("Abc"), txt("Abc"), true},
		"hstore":                     {"payload", "public", "hstore", txt(`"a"=>"b"`), field{}, false},
		"integer":                    {"payload", "", "int4", txt("1"), field{}, false},
		"somebody's text":            {"payload", "public", "text", txt("a"), field{}, false},
		"headers of json":            {"headers", "", "json", txt("{}"), txt("{}"), true},
		"headers of text":            {"headers", "", "text", txt("{}"), txt("{}"), true},
		"headers of citext":          {"headers", "public", "citext", txt("{}"), txt("{}"), true},
		"headers of hstore":          {"headers", "public", "hstore", txt(""), field{}, false},
		"aggregatetype of an enum":   {"aggregatetype", "public", "kind", txt("order"), txt("order"), true},
		"aggregatetype of a varchar": {"aggregatetype", "", "varchar", txt("order"), txt("order"), true},
	} {
		d := New(outboxConfig)
		decodeLast(t, d, beginMessage(), typeMessage(domainOID, c.schema, c.base))
		_, err := d.Decode(relationMessage(outboxOID, "public", "outbox", with(outboxColumns, c.column, domainOID)...))
		base, known := builtIn[c.base]
		if !known || c.schema != "" {
			base = otherType
		}
		_, fits := Fits(c.column, Type{OID: domainOID, Base: base, Name: c.base})
		if (err == nil) != c.fits || fits != c.fits {
			t.Errorf("%s: %v, and by the catalog %t; want %t", name, err, fits, c.fits)
			continue
		}
		if !c.fits {
			if !strings.Contains(err.Error(), c.column) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		row := []field{txt("i-1"), txt("order"), txt("k"), txt("created"), txt("{}"), null, txt("2026-01-01")}
		at := map[string]int{"aggregatetype": 1, "payload": 4, "headers": 5}[c.column]
		row[at] = c.value
		e := decodeLast(t, d, insertMessage(outboxOID, row...)).Event
		got := map[string][]byte{"aggregatetype": e.AggregateType, "payload": e.Payload, "headers": e.Headers}[c.column]
		if string(got) != c.want.data {
			t.Errorf("%s: got %q, want %q", name, got, c.want.data)
		}
	}
}

// TestMovedRows: an UPDATE that moves a row to another partition comes as a DELETE and the INSERT
// of the same row.
func TestMovedRows(t *testing.T) {
	t.Parallel()
	cfg := outboxConfig
	cfg.Partitioned = map[uint32][]string{outboxOID: {"created_at"}}
	row := func(id string) []byte {
		return insertMessage(outboxOID, txt(id), txt("order"), txt("k"), null, txt("{}"), null, txt("now"))
	}
	key := func(id, kind field, at string) []byte {
		return deleteMessage(outboxOID, id, kind, null, null, null, null, txt(at))
	}
	gone := func(id field) []byte { return key(id, null, "before") }
	whole := func(payload, at string) []byte {
		b := deleteMessage(outboxOID, txt("a"), txt("order"), txt("k"), null, txt(payload), null, txt(at))
		b[5] = 'O'
		return b
	}
	partition := relationMessage(101, "public", "part", outboxColumns...)
	other := insertMessage(otherOID, txt("1"), null)
	nextTransaction := [][]byte{commitMessage(testLSN, testLSN+48), beginAt(testLSN + 96)}
	for name, c := range map[string]struct {
		before [][]byte
		event  bool
		plain  bool // the table has no partitions
	}{
		"moved":                           {[][]byte{gone(txt("a"))}, false, false},
		"moved to a partition seen first": {[][]byte{gone(txt("a")), outboxRelation(), partition}, false, false},
		"second of two that are moved":    {[][]byte{gone(txt("b")), row("b"), gone(txt("a"))}, false, false},
		"another row was deleted":         {[][]byte{gone(txt("b"))}, true, false},
		"the id is not part of the key":   {[][]byte{gone(null)}, true, false},
		"the whole row":                   {[][]byte{whole("{}", "before")}, false, false},
		"another payload":                 {[][]byte{whole("1", "before")}, true, false},
		"the same partition":              {[][]byte{key(txt("a"), null, "now")}, true, false},
		"the rest of the key, too":        {[][]byte{key(txt("a"), txt("order"), "before")}, false, false},
		"another key":                     {[][]byte{key(txt("a"), txt("elsewhere"), "before")}, true, false},
		"another form":                    {[][]byte{gone(bin("a"))}, true, false},
		"a row between":                   {[][]byte{gone(txt("a")), row("c")}, true, false},
		"a row of another table between":  {[][]byte{otherRelation(), gone(txt("a")), other}, false, false},
		"the transaction before":          {append([][]byte{gone(txt("a"))}, nextTransaction...), true, false},
		"no partitions":                   {[][]byte{gone(txt("a"))}, true, true},
		"nothing was deleted":             {nil, true, false},
	} {
		used := cfg
		if c.plain {
			used = outboxConfig
		}
		d := New(used)
		decodeLast(t, d, append([][]byte{beginMessage(), outboxRelation()}, c.before...)...)
		change := decodeLast(t, d, row("a"))
		moved := change.Kind == Moved && string(change.Event.ID) == "a"
		if (change.Kind == Insert) != c.event || moved == c.event {
			t.Errorf("%s: the INSERT is an event: %t, want %t", name, change.Kind == Insert, c.event)
		}
		if next := decodeLast(t, d, row("a")); next.Event == nil {
			t.Errorf("%s: the next INSERT is none", name)
		} else if rows := d.rows; uint64(next.Event.Index) != rows-1 {
			t.Errorf("%s: index %d of %d rows", name, next.Event.Index, rows)
		}
	}
	cfg.Partitioned = map[uint32][]string{outboxOID: {"type"}}
	was := deleteMessage(outboxOID, txt("a"), txt("order"), txt("k"), txt("old"), txt("{}"), null, txt("before"))
	was[5] = 'O'
	if change := decodeLast(t, New(cfg), beginMessage(), outboxRelation(), was, row("a")); change.Kind != Moved {
		t.Error("the UPDATE has changed a column that is not of the event, too: the INSERT is an event")
	}
}

// TestOrigin: what a subscription has written is an event, unless the settings say that it is none.
func TestOrigin(t *testing.T) {
	t.Parallel()
	from := cstring(be.AppendUint64([]byte{'O'}, 7), "pg_16400")
	for _, localOnly := range []bool{false, true} {
		cfg := outboxConfig
		cfg.LocalOnly = localOnly
		d := New(cfg)
		change := decodeLast(t, d, beginMessage(), from, outboxRelation(), outboxInsert("k"))
		if (change.Event == nil) != localOnly {
			t.Errorf("local rows alone: %t; the row of a subscription is an event: %t", localOnly, change.Event != nil)
		}
		change = decodeLast(t, d, commitMessage(testLSN, testLSN+48), beginAt(testLSN+96), outboxInsert("k"))
		if change.Event == nil || change.Event.Index != 0 {
			t.Errorf("local rows alone: %t; a row of the next transaction is no event", localOnly)
		}
	}
}
