// Package walpost_test checks the pages that people read: that they are narrow, and that their
// links lead somewhere.
package walpost_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	maxColumns   = 100
	maxFrontPage = 120 // lines of README.md
	maxCell      = 160 // characters of a table cell: two lines on a page
)

// page is a Markdown file.
type page struct {
	path  string
	lines []string
}

// pages are README.md and everything in docs.
func pages(t *testing.T) []page {
	t.Helper()
	paths, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatal("there are no pages in docs")
	}
	var found []page
	for _, path := range append(paths, "README.md") {
		found = append(found, page{path, strings.Split(strings.TrimSuffix(read(t, path), "\n"), "\n")})
	}
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// longWord is a URL or a link that no line break can shorten.
var longWord = regexp.MustCompile(`^[-*> ]*\S+$`)

func TestPagesAreNarrow(t *testing.T) {
	t.Parallel()
	for _, p := range pages(t) {
		if p.path == "README.md" && len(p.lines) > maxFrontPage {
			t.Errorf("README.md has %d lines, want %d at most", len(p.lines), maxFrontPage)
		}
		for i, line := range p.lines {
			if n := utf8.RuneCountInString(line); n > maxColumns && !longWord.MatchString(line) {
				t.Errorf("%s:%d has %d columns, want %d at most", p.path, i+1, n, maxColumns)
			}
			if !strings.HasPrefix(line, "|") {
				continue
			}
			for _, cell := range strings.Split(line, "|") {
				if n := utf8.RuneCountInString(strings.TrimSpace(cell)); n > maxCell {
					t.Errorf("%s:%d has a cell of %d characters, want %d at most", p.path, i+1, n, maxCell)
				}
			}
		}
	}
}

// TestPagesSayForWhom wants the first line below each title to name the readers.
func TestPagesSayForWhom(t *testing.T) {
	t.Parallel()
	for _, p := range pages(t) {
		if p.path == "README.md" {
			continue
		}
		if len(p.lines) < 3 || !strings.HasPrefix(p.lines[0], "# ") || !strings.HasPrefix(p.lines[2], "*For ") {
			t.Errorf("%s does not begin with a title and a line *For ...*", p.path)
		}
	}
}

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	pageName = regexp.MustCompile(`docs/[A-Z_]+\.md(#[a-z0-9_-]+)?`)
)

// TestLinksLeadSomewhere follows the links between pages, and what log lines and comments name.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	for _, p := range pages(t) {
		for i, line := range p.lines {
			for _, match := range link.FindAllStringSubmatch(line, -1) {
				if strings.Contains(match[1], "://") {
					continue
				}
				path, heading, _ := strings.Cut(match[1], "#")
				if path = filepath.Join(filepath.Dir(p.path), path); strings.HasPrefix(match[1], "#") {
					path = p.path
				}
				if missing := lacks(t, path, heading); missing != "" {
					t.Errorf("%s:%d: %s", p.path, i+1, missing)
				}
			}
		}
	}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" && filepath.Ext(path) != ".sql" {
			return err
		}
		for _, name := range pageName.FindAllString(read(t, path), -1) {
			target, heading, _ := strings.Cut(name, "#")
			if missing := lacks(t, target, heading); missing != "" {
				t.Errorf("%s: %s", path, missing)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// lacks says what of a file and a heading in it is missing.
func lacks(t *testing.T, path, heading string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		return path + " is not there"
	}
	if heading == "" {
		return ""
	}
	for _, line := range strings.Split(read(t, path), "\n") {
		if title := strings.TrimLeft(line, "#"); title != line && anchor(title) == heading {
			return ""
		}
	}
	return path + " has no heading #" + heading
}

var notInAnchors = regexp.MustCompile(`[^a-z0-9 _-]`)

// anchor is the fragment that GitHub makes of a heading.
func anchor(title string) string {
	return strings.ReplaceAll(notInAnchors.ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), ""), " ", "-")
}

var (
	logged      = regexp.MustCompile("(?m)^ *- \\*\\*(`.+?)\\*\\*")
	placeholder = regexp.MustCompile(`"(walpost|\.\.\.)"|\.\.\.|\b[A-Z]+_[A-Z_]+\b`)
	joined      = regexp.MustCompile(`" \+\n\s*"`)
)

// TestOperationsQuotesTheLog finds what the lists of docs/OPERATIONS.md begin with in the sources,
// piece by piece: a message that has other words now is missing on the page.
func TestOperationsQuotesTheLog(t *testing.T) {
	t.Parallel()
	sources := sourceText(t)
	found := 0
	for _, match := range logged.FindAllStringSubmatch(read(t, "docs/OPERATIONS.md"), -1) {
		for i, quoted := range strings.Split(match[1], "`") {
			if i%2 == 0 || strings.Contains(quoted, "walpost_") {
				continue // a metric
			}
			for _, piece := range placeholder.Split(quoted, -1) {
				if piece = strings.Trim(piece, " ,:;()"); len(piece) < 6 {
					continue
				}
				found++
				if !strings.Contains(sources, piece) {
					t.Errorf("docs/OPERATIONS.md quotes %q, of which nothing in the sources says %q", quoted, piece)
				}
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d quotations were found", found)
	}
}

// sourceText is the text of the program, with literals that are broken over lines in one piece.
func sourceText(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && path == "integration" {
			return fs.SkipDir
		}
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		all.WriteString(joined.ReplaceAllString(read(t, path), ""))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}
