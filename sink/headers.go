package sink

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/decoder"
)

// errHeaders is the breach of contract of a headers column. It quotes nothing: header values are
// payload.
var errHeaders = errors.New("the headers are not a JSON object")

// appendHeaders appends one record header per member of a JSON object, in their stored order. A
// string is its own text, null a header with a null value, and everything else its JSON text as it
// is stored. JSON null in place of the object means no headers: many serializers write it where
// there is nothing.
//
// A member that has the name of a header that is there already is left out, since consumers that
// read the last of two would take it for ours. leftOut names those members.
//
// Keys and values are written to dst, which never grows beyond its capacity: the object's own
// length is enough for them.
func appendHeaders(
	headers []kgo.RecordHeader, object, dst []byte, intern func([]byte) string,
) (all []kgo.RecordHeader, leftOut []string, err error) {
	ours := headers
	p := headerParser{in: object}
	if p.null() {
		return headers, nil, p.end()
	}
	if !p.take('{') {
		return headers, nil, errHeaders
	}
	if p.take('}') {
		return headers, nil, p.end()
	}
	for {
		key, rest, ok := p.text(dst)
		if !ok || !p.take(':') {
			return headers, leftOut, errHeaders
		}
		value, rest, ok := p.value(rest)
		if !ok {
			return headers, leftOut, errHeaders
		}
		dst = rest
		if name := intern(key); has(ours, name) {
			leftOut = append(leftOut, name)
		} else {
			headers = append(headers, kgo.RecordHeader{Key: name, Value: value})
		}
		if p.take('}') {
			return headers, leftOut, p.end()
		}
		if !p.take(',') {
			return headers, leftOut, errHeaders
		}
	}
}

func has(headers []kgo.RecordHeader, name string) bool {
	for i := range headers {
		if headers[i].Key == name {
			return true
		}
	}
	return false
}

// sayLeftOut logs that a row has headers of names that are walpost's own: once per name.
func (b *builder) sayLeftOut(e *decoder.Event, names []string) {
	if b.leftOut == nil {
		b.leftOut = map[string]bool{}
	}
	news := false
	for _, name := range names {
		news = news || !b.leftOut[name]
		b.leftOut[name] = true
	}
	if news {
		b.sink.log.Warn().Str("table", e.Schema+"."+e.Table).Bytes("event_id", e.ID).Strs("headers", names).
			Msg("a row has headers with the names of walpost's own, and they are left out; this is logged once")
	}
}

// headerParser reads the JSON object that headers are.
type headerParser struct {
	in []byte
	at int
}

func (p *headerParser) space() {
	for p.at < len(p.in) && (p.in[p.at] == ' ' || p.in[p.at] == '\t' || p.in[p.at] == '\n' || p.in[p.at] == '\r') {
		p.at++
	}
}

func (p *headerParser) take(c byte) bool {
	p.space()
	if p.at < len(p.in) && p.in[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *headerParser) null() bool {
	const null = "null"
	p.space()
	if bytes.HasPrefix(p.in[p.at:], []byte(null)) {
		p.at += len(null)
		return true
	}
	return false
}

func (p *headerParser) end() error {
	if p.space(); p.at != len(p.in) {
		return errHeaders
	}
	return nil
}

// value reads the value of a member into the front of dst and returns it and what is left of dst.
// It is nil for null.
func (p *headerParser) value(dst []byte) (v, rest []byte, ok bool) {
	if p.null() {
		return nil, dst, true
	}
	if p.at < len(p.in) && p.in[p.at] == '"' {
		return p.text(dst)
	}
	start := p.at
	p.skip()
	stored := p.in[start:p.at]
	if !json.Valid(stored) {
		return nil, dst, false
	}
	n := copy(dst, stored)
	return dst[:n:n], dst[n:], true
}

// skip goes to the end of a value that is neither a string nor null, or of what should have been
// one: it looks at brackets and quotes alone.
func (p *headerParser) skip() {
	depth, quoted := 0, false
	for ; p.at < len(p.in); p.at++ {
		switch c := p.in[p.at]; {
		case quoted:
			if c == '\\' {
				p.at = min(p.at+1, len(p.in)-1)
			}
			quoted = c != '"'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			depth++
		case depth > 0 && (c == '}' || c == ']'):
			if depth--; depth == 0 {
				p.at++
				return
			}
		case depth == 0 && (c == ',' || c == '}' || c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			return
		}
	}
}

// text reads a string into the front of dst and returns it and what is left of dst. An unescaped
// string is never longer than its JSON form.
func (p *headerParser) text(dst []byte) (s, rest []byte, ok bool) {
	if !p.take('"') {
		return nil, dst, false
	}
	n := 0
	for p.at < len(p.in) {
		c := p.in[p.at]
		p.at++
		switch {
		case c == '"':
			return dst[:n:n], dst[n:], true
		case c < 0x20:
			return nil, dst, false
		case c != '\\':
			dst[n] = c
			n++
		default:
			m := p.escape(dst[n:])
			if m == 0 {
				return nil, dst, false
			}
			n += m
		}
	}
	return nil, dst, false
}

// escape reads what follows a backslash; it returns how many bytes it wrote, 0 if it is no escape.
func (p *headerParser) escape(dst []byte) int {
	if p.at >= len(p.in) {
		return 0
	}
	c := p.in[p.at]
	p.at++
	switch c {
	case '"', '\\', '/':
		dst[0] = c
	case 'b':
		dst[0] = '\b'
	case 'f':
		dst[0] = '\f'
	case 'n':
		dst[0] = '\n'
	case 'r':
		dst[0] = '\r'
	case 't':
		dst[0] = '\t'
	case 'u':
		r, ok := p.unit()
		if !ok {
			return 0
		}
		if utf16.IsSurrogate(r) {
			r = p.surrogate(r)
		}
		return utf8.EncodeRune(dst[:utf8.UTFMax:utf8.UTFMax], r)
	default:
		return 0
	}
	return 1
}

// unit reads the four digits of a \u escape.
func (p *headerParser) unit() (rune, bool) {
	if p.at+4 > len(p.in) {
		return 0, false
	}
	v, err := strconv.ParseUint(string(p.in[p.at:p.at+4]), 16, 16)
	p.at += 4
	return rune(v), err == nil
}

// surrogate reads the second half of a pair; half a pair becomes the replacement character.
func (p *headerParser) surrogate(first rune) rune {
	if p.at+1 < len(p.in) && p.in[p.at] == '\\' && p.in[p.at+1] == 'u' {
		at := p.at
		p.at += 2
		if second, ok := p.unit(); ok {
			if r := utf16.DecodeRune(first, second); r != utf8.RuneError {
				return r
			}
		}
		p.at = at
	}
	return utf8.RuneError
}
