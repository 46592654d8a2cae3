package sink

import (
	"errors"
	"fmt"
	"strings"

	"github.com/walpost/walpost/decoder"
)

// maxTopicLength is Kafka's limit of a topic's name.
const maxTopicLength = 249

// Template makes a topic's name out of an event: literal text and columns in braces, as in
// "outbox.event.{aggregatetype}".
type Template struct {
	text    string
	parts   []part
	extra   []string
	columns map[string]string
}

// part is literal text, or the value of one column of the event.
type part struct {
	literal string
	value   func(*decoder.Event) []byte
}

// ParseTemplate compiles a template. Columns are named as the contract names them, or else as the
// table does; columns maps the former to the latter.
func ParseTemplate(text string, columns map[string]string) (*Template, error) {
	t := &Template{text: text, columns: columns}
	if text == "" {
		return nil, errors.New("topic template is empty")
	}
	for rest := text; rest != ""; {
		literal, after, open := strings.Cut(rest, "{")
		if strings.Contains(literal, "}") {
			return nil, fmt.Errorf("topic template %q: a brace is closed that was not opened", text)
		}
		if !legalTopic(literal) {
			return nil, fmt.Errorf("topic template %q: %q has characters that no topic may have "+
				"(legal: a-z A-Z 0-9 . _ -)", text, literal)
		}
		if literal != "" {
			t.parts = append(t.parts, part{literal: literal})
		}
		if !open {
			break
		}
		column, after, closed := strings.Cut(after, "}")
		if !closed || column == "" || strings.Contains(column, "{") {
			return nil, fmt.Errorf("topic template %q: a column is written {name}", text)
		}
		t.parts = append(t.parts, part{value: t.column(column)})
		rest = after
	}
	return t, nil
}

// column returns how the value of a column is read from an event. Columns that the event does not
// carry under a name of the contract become extra ones.
func (t *Template) column(name string) func(*decoder.Event) []byte {
	logical := name
	for of, own := range t.columns {
		if own == name {
			logical = of
		}
	}
	switch logical {
	case "aggregatetype":
		return func(e *decoder.Event) []byte { return e.AggregateType }
	case "aggregateid":
		return func(e *decoder.Event) []byte { return e.Key }
	case "type":
		return func(e *decoder.Event) []byte { return e.Type }
	case "id":
		return func(e *decoder.Event) []byte { return e.ID }
	}
	if own, ok := t.columns[name]; ok {
		name = own
	}
	i := len(t.extra)
	t.extra = append(t.extra, name)
	return func(e *decoder.Event) []byte { return e.Extra[i] }
}

// Extra returns the table's columns that the decoder has to read for this template, besides those
// of the contract.
func (t *Template) Extra() []string { return t.extra }

// append writes the name of an event's topic, which [checkTopic] has not seen.
func (t *Template) append(b []byte, e *decoder.Event) ([]byte, error) {
	for _, p := range t.parts {
		if p.value == nil {
			b = append(b, p.literal...)
			continue
		}
		v := p.value(e)
		if len(v) == 0 {
			return b, fmt.Errorf("a column that topic template %q names is NULL or empty", t.text)
		}
		b = append(b, v...)
	}
	return b, nil
}

// checkTopic returns an error for a name that no topic may have.
func checkTopic(name string) error {
	if len(name) > maxTopicLength || name == "." || name == ".." || !legalTopic(name) {
		return fmt.Errorf("topic %.260q is not legal: at most %d characters of a-z A-Z 0-9 . _ -", name, maxTopicLength)
	}
	return nil
}

func legalTopic(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		digit := c >= '0' && c <= '9'
		if !letter && !digit && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}
