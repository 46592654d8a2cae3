package decoder

import "encoding/binary"

// The functions of this file write messages as the server would.

var be = binary.BigEndian

const testLSN = 0x1_0000_0020

func beginMessage() []byte { return beginAt(testLSN) }

func beginAt(lsn uint64) []byte {
	b := be.AppendUint64([]byte{'B'}, lsn)
	return be.AppendUint32(be.AppendUint64(b, 77), 42)
}

func commitMessage(lsn, end uint64) []byte {
	b := be.AppendUint64([]byte{'C', 0}, lsn)
	return be.AppendUint64(be.AppendUint64(b, end), 77)
}

func cstring(b []byte, s string) []byte { return append(append(b, s...), 0) }

type col struct {
	name string
	oid  uint32
}

func relationMessage(oid uint32, schema, table string, columns ...col) []byte {
	b := be.AppendUint32([]byte{'R'}, oid)
	b = append(cstring(cstring(b, schema), table), 'd')
	b = be.AppendUint16(b, uint16(len(columns)))
	for _, c := range columns {
		b = be.AppendUint32(cstring(append(b, 0), c.name), c.oid)
		b = be.AppendUint32(b, 0xffffffff)
	}
	return b
}

// A field is one column of a row: NULL, the unchanged marker, text or binary.
type field struct {
	form byte
	data string
}

var (
	null      = field{form: 'n'}
	unchanged = field{form: 'u'}
)

func txt(s string) field { return field{'t', s} }
func bin(s string) field { return field{'b', s} }

func appendTuple(b []byte, fields ...field) []byte {
	b = be.AppendUint16(b, uint16(len(fields)))
	for _, f := range fields {
		b = append(b, f.form)
		if f.form == 't' || f.form == 'b' {
			b = append(be.AppendUint32(b, uint32(len(f.data))), f.data...)
		}
	}
	return b
}

func insertMessage(oid uint32, fields ...field) []byte {
	return appendTuple(append(be.AppendUint32([]byte{'I'}, oid), 'N'), fields...)
}

func updateMessage(oid uint32, fields ...field) []byte {
	return appendTuple(append(be.AppendUint32([]byte{'U'}, oid), 'N'), fields...)
}

func deleteMessage(oid uint32, fields ...field) []byte {
	return appendTuple(append(be.AppendUint32([]byte{'D'}, oid), 'K'), fields...)
}

// The outbox of the hand-made tests.
const (
	outboxOID = 100
	otherOID  = 200
)

var (
	outboxConfig  = Config{Tables: []Table{{"public", "outbox"}}}
	outboxColumns = []col{
		{"id", oidUUID},
		{"aggregatetype", oidText},
		{"aggregateid", oidText},
		{"type", oidText},
		{"payload", oidJSONB},
		{"headers", oidJSONB},
		{"created_at", 1184},
	}
)

func outboxRelation() []byte { return relationMessage(outboxOID, "public", "outbox", outboxColumns...) }

func otherRelation() []byte {
	return relationMessage(otherOID, "public", "orders", col{"id", oidInt4}, col{"state", oidText})
}

func outboxInsert(key string) []byte {
	return insertMessage(outboxOID,
		txt("i-1"), txt("order"), txt(key), txt("created"), txt("{}"), null, txt("2026-01-01"))
}

func with(columns []col, name string, oid uint32) []col {
	changed := append([]col(nil), columns...)
	for i := range changed {
		if changed[i].name == name {
			changed[i].oid = oid
		}
	}
	return changed
}

func without(columns []col, name string) []col {
	var left []col
	for _, c := range columns {
		if c.name != name {
			left = append(left, c)
		}
	}
	return left
}
