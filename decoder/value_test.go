package decoder

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// idOf decodes a value of a type as the id of an event.
func idOf(t *testing.T, oid uint32, f field) (string, error) {
	t.Helper()
	d := New(outboxConfig)
	decodeLast(t, d, beginMessage(), relationMessage(outboxOID, "public", "outbox", with(outboxColumns, "id", oid)...))
	change, err := d.Decode(insertMessage(outboxOID, f, txt("a"), txt("k"), null, null, null, null))
	if err != nil {
		return "", err
	}
	return string(change.Event.ID), nil
}

func TestBinaryForms(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		oid  uint32
		in   string
		want string
	}{
		{oidText, "t\x00\xff", "t\x00\xff"},
		{oidVarchar, "v", "v"},
		{oidBpchar, "b  ", "b  "},
		{oidName, "n", "n"},
		{oidJSON, `{"a": 1}`, `{"a": 1}`},
		{oidJSONB, "\x01{}", "{}"},
		{oidBytea, "\x00\xab", `\x00ab`},
		{oidBytea, "", `\x`},
		{oidBool, "\x00", "f"},
		{oidBool, "\x01", "t"},
		{oidInt2, "\x80\x00", "-32768"},
		{oidInt4, "\x7f\xff\xff\xff", "2147483647"},
		{oidInt8, "\x80\x00\x00\x00\x00\x00\x00\x00", "-9223372036854775808"},
		{oidOID, "\xff\xff\xff\xff", "4294967295"},
		{
			oidUUID, "\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10",
			"01234567-89ab-cdef-fedc-ba9876543210",
		},
	} {
		if got, err := idOf(t, test.oid, bin(test.in)); err != nil || got != test.want {
			t.Errorf("type %s of %q: got %q, %v, want %q", typeText(test.oid), test.in, got, err, test.want)
		}
		if !BinarySafe(test.oid) {
			t.Errorf("type %s is read, but BinarySafe denies it", typeText(test.oid))
		}
	}
}

func TestBinaryFormsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		oid    uint32
		in     string
		reason string
	}{
		{1700, "\x00\x00", "numeric (oid 1700) came in binary form"},
		{1184, "12345678", "timestamptz (oid 1184) came in binary form"},
		{firstUserOID, "label", "user-defined (oid 16384) came in binary form"},
		{603, "", "oid 603 came in binary form"},
		{oidBool, "\x02", "malformed binary form of 1 bytes"},
		{oidBool, "", "malformed binary form of 0 bytes"},
		{oidInt2, "\x00", "malformed binary form of 1 bytes"},
		{oidInt4, "\x00\x00", "malformed binary form of 2 bytes"},
		{oidInt8, "\x00\x00\x00\x00", "malformed binary form of 4 bytes"},
		{oidOID, "", "malformed binary form of 0 bytes"},
		{oidUUID, "12345678901234567", "malformed binary form of 17 bytes"},
		{oidJSONB, "", "malformed binary form of 0 bytes"},
	} {
		if got, err := idOf(t, test.oid, bin(test.in)); err == nil || !strings.Contains(err.Error(), test.reason) {
			t.Errorf("type %d of %q: got %q, %v, want an error with %q", test.oid, test.in, got, err, test.reason)
		}
		if unsafe := strings.Contains(test.reason, "came in binary form"); BinarySafe(test.oid) == unsafe {
			t.Errorf("type %d: BinarySafe says %v", test.oid, !unsafe)
		}
	}
}

// Text is passed on for types that nobody knows, and whatever its bytes.
func TestTextOfAnyType(t *testing.T) {
	t.Parallel()
	for _, oid := range []uint32{oidBytea, 603, 1700, firstUserOID} {
		if got, err := idOf(t, oid, txt("\\x00 \xff")); err != nil || got != "\\x00 \xff" {
			t.Errorf("type %d: got %q, %v", oid, got, err)
		}
	}
}

func byteaPayload(t *testing.T, f field) ([]byte, error) {
	t.Helper()
	d := New(outboxConfig)
	decodeLast(t, d, beginMessage(),
		relationMessage(outboxOID, "public", "outbox", with(outboxColumns, "payload", oidBytea)...))
	change, err := d.Decode(insertMessage(outboxOID, txt("i-1"), txt("a"), txt("k"), null, f, null, null))
	if err != nil {
		return nil, err
	}
	return change.Event.Payload, nil
}

func TestByteaPayload(t *testing.T) {
	t.Parallel()
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for _, test := range []struct {
		in   field
		want []byte
	}{
		{txt(`\x` + hex.EncodeToString(every)), every},
		{txt(`\x` + strings.ToUpper(hex.EncodeToString(every))), every},
		{bin(string(every)), every},
		{txt(`\x`), []byte{}},
		{bin(""), []byte{}},
		{null, nil},
	} {
		got, err := byteaPayload(t, test.in)
		if err != nil || !bytes.Equal(got, test.want) || (got == nil) != (test.want == nil) {
			t.Errorf("%q: got %q, %v, want %q", test.in.data, got, err, test.want)
		}
	}
}

func TestMalformedByteaPayload(t *testing.T) {
	t.Parallel()
	for _, in := range []field{
		txt(`\x0`), txt(`\x0g`), txt(`\`), txt("abc"), txt(""), unchanged,
	} {
		got, err := byteaPayload(t, in)
		if err == nil {
			t.Errorf("%q: got %q, want an error", in.data, got)
			continue
		}
		e := asError(t, err)
		if e.Column != "payload" || e.EventID != "i-1" || (in.data != "" && strings.Contains(e.Error(), in.data)) {
			t.Errorf("%q: got %v, want an error about the payload that does not show it", in.data, e)
		}
	}
}

// Values that were rewritten early stay whole when the buffer has to grow for
// a later one, and a large buffer is given back.
func TestScratchGrowsAndShrinks(t *testing.T) {
	t.Parallel()
	d := New(outboxConfig)
	decodeLast(t, d, beginMessage(),
		relationMessage(outboxOID, "public", "outbox", with(outboxColumns, "payload", oidBytea)...))
	large := bytes.Repeat([]byte{0xa5}, 2*scratchMost)
	uuid := bin("\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10")
	insert := func(payload string) *Event {
		row := insertMessage(outboxOID, uuid, txt("a"), txt("k"), null, txt(payload), null, null)
		return decodeLast(t, d, row).Event
	}
	e := insert(`\x` + hex.EncodeToString(large))
	if string(e.ID) != "01234567-89ab-cdef-fedc-ba9876543210" || !bytes.Equal(e.Payload, large) {
		t.Errorf("id %q and a payload of %d bytes", e.ID, len(e.Payload))
	}
	decodeLast(t, d, commitMessage(testLSN, testLSN+8))
	if cap(d.scratch) > scratchMost || d.event.Payload != nil {
		t.Errorf("the next message leaves a buffer of %d bytes and a payload of %d",
			cap(d.scratch), len(d.event.Payload))
	}
	decodeLast(t, d, beginMessage())
	if e := insert(`\x00`); !bytes.Equal(e.Payload, []byte{0}) || string(e.Key) != "k" {
		t.Errorf("the next event is %s", show(*copyRow(e)))
	}
}
