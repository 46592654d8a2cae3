package config

import (
	"errors"
	"fmt"
	"strings"
)

// Table names one outbox table, exactly as the catalog of Postgres spells it.
type Table struct {
	Schema, Name string
}

// String writes the table as it is written in SQL, quoted where it must be.
func (t Table) String() string { return quoteIfNeeded(t.Schema) + "." + quoteIfNeeded(t.Name) }

// maxIdentifier is how many bytes of a name Postgres keeps; it cuts the rest off without an error.
const maxIdentifier = 63

// Tables gives the outbox tables in the order given. Parse has checked that there are no errors; a
// Config made by hand gets the tables up to the first that is wrong.
func (c *Config) Tables() ([]Table, error) {
	var tables []Table
	for _, given := range c.Table {
		table, err := parseTable(given)
		if err != nil {
			return tables, err
		}
		tables = append(tables, table)
	}
	return tables, nil
}

// parseTable reads schema.name or name by the rules of SQL: what is not quoted is folded to lower
// case.
func parseTable(given string) (Table, error) {
	var parts []string
	rest := strings.TrimSpace(given)
	for {
		part, after, err := parseIdentifier(rest)
		if err != nil {
			return Table{}, fmt.Errorf("%q is not a table: %w", given, err)
		}
		parts = append(parts, part)
		if after == "" {
			break
		}
		rest = after[1:]
	}
	switch len(parts) {
	case 1:
		return Table{Schema: "public", Name: parts[0]}, nil
	case 2:
		return Table{Schema: parts[0], Name: parts[1]}, nil
	default:
		return Table{}, fmt.Errorf("%q is not a table: it has %d parts, and schema.name has two", given, len(parts))
	}
}

// parseIdentifier takes one identifier off the front. What is left is empty or starts with the dot.
func parseIdentifier(s string) (name, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		name, rest, err = parseQuoted(s[1:])
	} else {
		end := strings.IndexByte(s, '.')
		if end < 0 {
			end = len(s)
		}
		name, rest = strings.ToLower(s[:end]), s[end:]
		if strings.ContainsAny(name, "\" \t\n'();,") {
			err = errors.New("a name with such characters must be in double quotes")
		}
	}
	switch {
	case err != nil:
		return "", "", err
	case name == "":
		return "", "", errors.New("a name is empty")
	case len(name) > maxIdentifier:
		return "", "", fmt.Errorf("a name is longer than %d bytes", maxIdentifier)
	case strings.ContainsRune(name, 0):
		return "", "", errors.New("a name holds a zero byte")
	case rest != "" && rest[0] != '.':
		return "", "", errors.New("after the closing quote only a dot may follow")
	}
	return name, rest, nil
}

// parseQuoted reads up to the closing quote; a quote inside is written twice.
func parseQuoted(s string) (name, rest string, err error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `"`)
		if !found {
			return "", "", errors.New("a double quote is not closed")
		}
		b.WriteString(before)
		if !strings.HasPrefix(after, `"`) {
			return b.String(), after, nil
		}
		b.WriteByte('"')
		s = after[1:]
	}
}

func quoteIfNeeded(name string) string {
	plain := name != "" && (name[0] < '0' || name[0] > '9')
	for i := range len(name) {
		c := name[i]
		plain = plain && (c == '_' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9')
	}
	if plain {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}
