package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

const maxTopic = 249 // Kafka's own limit, in bytes.

var topicChars = regexp.MustCompile(`^[a-zA-Z0-9._-]*$`)

// checkTopic tells what Kafka would say of the name of a topic.
func checkTopic(name string) error {
	switch {
	case name == "":
		return errors.New("is empty")
	case name == "." || name == "..":
		return fmt.Errorf("%q is not a name that Kafka allows", name)
	case len(name) > maxTopic:
		return fmt.Errorf("is %d bytes long, and Kafka allows %d", len(name), maxTopic)
	case !topicChars.MatchString(name):
		return fmt.Errorf("%q has characters that Kafka does not allow: only letters, digits, dot, "+
			"underscore and hyphen",
			name)
	}
	return nil
}

// checkTemplate checks a topic in which {column} stands for a column of the row, and says whether
// there is none.
func checkTemplate(template string) (constant bool, err error) {
	if !strings.ContainsAny(template, "{}") {
		return true, checkTopic(template)
	}
	rest, literal := template, ""
	for rest != "" {
		open := strings.IndexAny(rest, "{}")
		if open < 0 {
			literal += rest
			break
		}
		if rest[open] == '}' {
			return false, fmt.Errorf("%q has a closing brace without an opening one", template)
		}
		literal += rest[:open]
		column, after, found := strings.Cut(rest[open+1:], "}")
		switch {
		case !found:
			return false, fmt.Errorf("%q has an opening brace that is not closed", template)
		case column == "":
			return false, fmt.Errorf("%q has braces without a column name between them", template)
		case strings.ContainsRune(column, '{'):
			return false, fmt.Errorf("%q has an opening brace inside another", template)
		}
		rest = after
	}
	if literal == "" {
		return false, nil
	}
	if err := checkTopic(literal); err != nil && literal != "." && literal != ".." {
		return false, fmt.Errorf("its fixed part %w", err)
	}
	return false, nil
}
