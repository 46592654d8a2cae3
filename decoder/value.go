package decoder

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
)

const (
	scratchStart = 256
	// scratchMost is how large a scratch buffer may stay from one event to the
	// next, so that one large value does not occupy memory for ever.
	scratchMost = 1 << 20
)

// takeBack ends what the caller borrowed with the call before. It releases a
// buffer that has grown large, and everything that points into it.
func (d *Decoder) takeBack() {
	if cap(d.scratch) > scratchMost {
		clear(d.event.Extra)
		d.event = Event{Extra: d.event.Extra}
		d.scratch = make([]byte, 0, scratchStart)
	}
	d.scratch = d.scratch[:0]
}

// room returns n bytes at the end of the scratch buffer. Earlier values stay
// valid: when the buffer moves, they keep the old one.
func (d *Decoder) room(n int) []byte {
	start := len(d.scratch)
	d.scratch = slices.Grow(d.scratch, n)[:start+n]
	return d.scratch[start : start+n : start+n]
}

// text returns the text of the column in a slot, nil for NULL and for a column
// that is absent.
func (d *Decoder) text(p *plan, slot int16) ([]byte, *Error) {
	if slot == absent {
		return nil, nil
	}
	v, c := d.raw[slot], &p.columns[slot]
	switch v.form {
	case 'n':
		return nil, nil
	case 't':
		return v.data, nil
	case 'b':
		text, ok := d.binaryText(c.oid, v.data)
		if ok {
			return text, nil
		}
		return nil, c.unreadable(len(v.data))
	}
	return nil, c.fault("column %q holds an unchanged TOAST value, which an insert cannot", c.name)
}

// payload returns the bytes to publish. They differ from the text only for
// bytea, whose text is an encoding of the bytes.
func (d *Decoder) payload(p *plan) ([]byte, *Error) {
	slot := p.logical[colPayload]
	v, c := d.raw[slot], &p.columns[slot]
	if c.oid != oidBytea {
		return d.text(p, slot)
	}
	switch v.form {
	case 'b':
		return v.data, nil
	case 't':
		if raw, ok := d.bytea(v.data); ok {
			return raw, nil
		}
		return nil, c.fault("column %q holds malformed text of a bytea", c.name)
	}
	return d.text(p, slot)
}

// binaryText turns the binary form of a value into the text that Postgres
// would print.
func (d *Decoder) binaryText(oid uint32, b []byte) ([]byte, bool) {
	switch oid {
	case oidText, oidVarchar, oidBpchar, oidName, oidJSON:
		return b, true
	case oidJSONB:
		if len(b) > 0 && b[0] == 1 { // the version of the binary form
			return b[1:], true
		}
	case oidUUID:
		return d.uuid(b)
	case oidBytea:
		text := d.room(2 + hex.EncodedLen(len(b)))
		copy(text, `\x`)
		hex.Encode(text[2:], b)
		return text, true
	case oidBool:
		if len(b) == 1 && b[0] <= 1 {
			text := d.room(1)
			text[0] = "ft"[b[0]]
			return text, true
		}
	default:
		if n, ok := integer(oid, b); ok {
			return strconv.AppendInt(d.room(20)[:0], n, 10), true
		}
	}
	return nil, false
}

func integer(oid uint32, b []byte) (int64, bool) {
	switch {
	case oid == oidInt2 && len(b) == 2:
		return int64(int16(binary.BigEndian.Uint16(b))), true
	case oid == oidInt4 && len(b) == 4:
		return int64(int32(binary.BigEndian.Uint32(b))), true
	case oid == oidOID && len(b) == 4:
		return int64(binary.BigEndian.Uint32(b)), true
	case oid == oidInt8 && len(b) == 8:
		return int64(binary.BigEndian.Uint64(b)), true
	}
	return 0, false
}

func (d *Decoder) uuid(b []byte) ([]byte, bool) {
	if len(b) != 16 {
		return nil, false
	}
	text := d.room(36)
	at := 0
	for i, group := range [...]int{4, 2, 2, 2, 6} {
		if i > 0 {
			text[at] = '-'
			at++
		}
		at += hex.Encode(text[at:], b[:group])
		b = b[group:]
	}
	return text, true
}

// bytea decodes the text of a bytea in the hex form, which the session asks for (bytea_output).
func (d *Decoder) bytea(text []byte) ([]byte, bool) {
	digits, found := bytes.CutPrefix(text, []byte(`\x`))
	if !found {
		return nil, false
	}
	raw := d.room(hex.DecodedLen(len(digits)))
	_, err := hex.Decode(raw, digits)
	return raw, err == nil
}

// fault is an error about the column.
func (c *column) fault(format string, args ...any) *Error {
	err := fault(format, args...)
	err.Column = c.name
	return err
}

// unreadable is the error of a binary form that cannot be read.
func (c *column) unreadable(length int) *Error {
	if !BinarySafe(c.oid) {
		err := c.fault("column %q of type %s came in binary form, which is supported only for built-in text, json, "+
			"integer, boolean, uuid and bytea types: start the replication without the option binary",
			c.name, typeText(c.oid))
		err.Binary = true
		return err
	}
	return c.fault("column %q of type %s came in a malformed binary form of %d bytes", c.name, typeText(c.oid), length)
}
