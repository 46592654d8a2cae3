package sink

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// errHeaders is the breach of contract of a headers column. It quotes nothing: header values are payload.
var errHeaders = errors.New("the headers are not a JSON object whose members are strings or null")

// appendHeaders appends one record header per member of a JSON object of strings, in their stored order. Keys and
// values are written to dst, which never grows beyond its capacity: the object's own length is enough for them. It
// returns the rest of dst. JSON null is what many serializers write where there is nothing: in place of the object
// it means no headers, and as a member a header with a null value.
func appendHeaders(headers []kgo.RecordHeader, object, dst []byte, intern func([]byte) string) ([]kgo.RecordHeader, []byte, error) {
	p := headerParser{in: object}
	if p.null() {
		return headers, dst, p.end()
	}
	if !p.take('{') {
		return headers, dst, errHeaders
	}
	if p.take('}') {
		return headers, dst, p.end()
	}
	for {
		key, rest, ok := p.text(dst)
		if !ok || !p.take(':') {
			return headers, dst, errHeaders
		}
		var value []byte
		if !p.null() {
			if value, rest, ok = p.text(rest); !ok {
				return headers, dst, errHeaders
			}
		}
		dst = rest
		headers = append(headers, kgo.RecordHeader{Key: intern(key), Value: value})
		if p.take('}') {
			return headers, dst, p.end()
		}
		if !p.take(',') {
			return headers, dst, errHeaders
		}
	}
}

// headerParser reads the little of JSON that headers may be.
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

// text reads a string into the front of dst and returns it and what is left of dst. An unescaped string is never
// longer than its JSON form.
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
