package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// defaultFile is read when no file is named, if it is there.
const defaultFile = "walpost.yaml"

// fileSettings hands the settings of the YAML file to kong. It is read on first use, because only
// then the name of the file is known, and only for commands that have settings: a file that is
// broken does not keep anyone from asking for the version.
type fileSettings struct {
	allowed   map[string]reflect.Kind // Flags that may be set, and how their fields are made.
	loaded    bool
	values    map[string]any // By flag: string, []any of strings, or map[string]any of strings.
	faults    faults
	resolving *kong.Flag // The flag that was resolved last.
}

// Validate is part of kong's interface. Faults were gathered while reading.
func (s *fileSettings) Validate(*kong.Application) error { return nil }

// Resolve gives the file's value of a flag. It gives none where a variable is set: kong would let
// the file win.
func (s *fileSettings) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if s.allowed[flag.Name] == reflect.Invalid || flag.Name == "config" {
		return nil, nil
	}
	if !s.loaded {
		s.loaded = true
		s.load(configPath(ctx))
	}
	if slices.ContainsFunc(flag.Envs, func(name string) bool { _, set := os.LookupEnv(name); return set }) {
		return nil, nil
	}
	value, found := s.values[flag.Name]
	if !found {
		return nil, nil
	}
	s.resolving = flag
	return value, nil
}

func configPath(ctx *kong.Context) string {
	for _, flag := range ctx.Flags() {
		if flag.Name == "config" {
			path, _ := ctx.FlagValue(flag).(string)
			return path
		}
	}
	return ""
}

func (s *fileSettings) load(path string) {
	s.values = map[string]any{}
	named := path != ""
	if !named {
		path = defaultFile
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return
	}
	if err != nil {
		s.faults.add("config", "%v", err)
		return
	}
	file, err := parser.ParseBytes(text, 0)
	var syntax *yaml.SyntaxError
	switch {
	case errors.As(err, &syntax):
		// The message alone: the library's own text shows the lines around it, which may hold a
		// password.
		s.faults.add("", "%s:%d: %s", path, syntax.Token.Position.Line, syntax.Message)
		return
	case err != nil:
		s.faults.add("", "%s: is not YAML", path)
		return
	}
	if len(file.Docs) > 1 {
		s.faults.add("", "%s: holds several YAML documents, where one is expected", path)
	}
	for _, doc := range file.Docs {
		s.readDocument(path, doc.Body)
	}
}

func (s *fileSettings) readDocument(path string, body ast.Node) {
	if body == nil || body.Type() == ast.NullType || body.Type() == ast.CommentType {
		return
	}
	entries, ok := mapEntries(body)
	if !ok {
		s.faults.add("", "%s: is not a map of settings", path)
		return
	}
	for _, entry := range entries {
		key := entry.Key.GetToken()
		place := fmt.Sprintf("%s:%d", path, key.Position.Line)
		flag := strings.ReplaceAll(key.Value, "_", "-")
		switch {
		case flag == "config":
			s.faults.add("", "%s: a file cannot name another file with %q", place, key.Value)
		case s.allowed[flag] == reflect.Invalid || fileKey(flag) != key.Value:
			s.faults.add("", "%s: unknown key %q%s", place, key.Value, s.suggest(key.Value))
		default:
			s.readValue(place, flag, entry.Value)
		}
	}
}

// suggest names the key that was probably meant.
func (s *fileSettings) suggest(key string) string {
	var keys []string
	for flag := range s.allowed {
		if flag != "config" { // a file cannot name another
			keys = append(keys, fileKey(flag))
		}
	}
	if meant := closest(key, keys); meant != "" {
		return fmt.Sprintf(", did you mean %q?", meant)
	}
	return ""
}

// readValue keeps every scalar as the text that stands in the file, so that a number given for a
// string is that text.
func (s *fileSettings) readValue(place, flag string, node ast.Node) {
	wrong := func(what string) { s.faults.add("", "%s: %s (--%s) %s", place, fileKey(flag), flag, what) }
	kind := s.allowed[flag]
	if text, ok := scalar(node); ok {
		s.values[flag] = text
		return
	}
	if list, ok := node.(*ast.SequenceNode); ok && kind == reflect.Slice {
		values := []any{}
		for _, item := range list.Values {
			text, ok := scalar(item)
			if !ok {
				wrong("must be a list of plain values")
				return
			}
			values = append(values, text)
		}
		s.values[flag] = values
		return
	}
	if entries, ok := mapEntries(node); ok && kind == reflect.Map {
		values := map[string]any{}
		for _, entry := range entries {
			text, ok := scalar(entry.Value)
			if !ok {
				wrong("must be a map of plain values")
				return
			}
			values[entry.Key.GetToken().Value] = text
		}
		s.values[flag] = values
		return
	}
	switch {
	case node == nil || node.Type() == ast.NullType:
		wrong("has no value")
	case kind == reflect.Slice:
		wrong("must be a list of plain values")
	case kind == reflect.Map:
		wrong("must be a map of plain values")
	default:
		wrong("must be one plain value")
	}
}

func mapEntries(node ast.Node) ([]*ast.MappingValueNode, bool) {
	switch node := node.(type) {
	case *ast.MappingNode:
		return node.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{node}, true
	}
	return nil, false
}

// scalar gives the text of a plain value: of a number as it is written, of a quoted string what is
// between the quotes.
func scalar(node ast.Node) (string, bool) {
	switch node := node.(type) {
	case *ast.StringNode:
		return node.Value, true
	case *ast.LiteralNode:
		return node.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return node.GetToken().Value, true
	}
	return "", false
}
