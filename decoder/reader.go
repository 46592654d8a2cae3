package decoder

import (
	"bytes"
	"encoding/binary"
)

// reader takes the fields of a message off its front. The first field that is
// incomplete sets cut, and from then on every field is zero. So a message is
// read to its end and checked once.
type reader struct {
	rest []byte
	cut  bool
}

// take returns the next n bytes, or nil if there are fewer.
func (r *reader) take(n uint32) []byte {
	if r.cut || uint64(n) > uint64(len(r.rest)) {
		r.cut = true
		return nil
	}
	// The capacity ends with the value, so that an append to a borrowed value
	// cannot run into the next one.
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// cstring returns the bytes before the next zero byte, and steps over both.
func (r *reader) cstring() []byte {
	end := bytes.IndexByte(r.rest, 0)
	if r.cut || end < 0 {
		r.cut = true
		return nil
	}
	b := r.rest[:end:end]
	r.rest = r.rest[end+1:]
	return b
}

// end refuses a message that is cut short or has bytes left over.
func (r *reader) end(message string) *Error {
	switch {
	case r.cut:
		return fault("malformed %s message: it is cut short", message)
	case len(r.rest) != 0:
		return fault("malformed %s message: %d bytes are left over", message, len(r.rest))
	}
	return nil
}
