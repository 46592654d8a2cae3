package walpost_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const architecture = "docs/ARCHITECTURE.md"

var (
	mapTitle = regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\| .* \\|\n\\|---\\|---\\|\n((?:\\|.*\n)+)")
	fileName = regexp.MustCompile("`([a-z_/]+\\.(?:go|sql))`")
	symbol   = regexp.MustCompile("`(\\w+)` in ([a-z_/]+\\.go)")
	anyFile  = regexp.MustCompile(`[a-z_/]+\.go\b`)
)

// TestFileMap compares the file map with the files: all but tests, doc.go and folders that the map
// does not have.
func TestFileMap(t *testing.T) {
	t.Parallel()
	_, fileMap, found := strings.Cut(read(t, architecture), "## File map")
	if !found {
		t.Fatal("there is no file map")
	}
	tables := mapTitle.FindAllStringSubmatch(fileMap+"\n", -1)
	if len(tables) == 0 {
		t.Fatal("the file map has no tables")
	}
	for _, table := range tables {
		folder, listed := table[1], []string{}
		for _, row := range strings.Split(table[2], "\n") {
			name, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
			for _, match := range fileName.FindAllStringSubmatch(name, -1) {
				listed = append(listed, match[1])
				if _, err := os.Stat(filepath.Join(folder, match[1])); err != nil {
					t.Errorf("the map has %s in %s, which is not there", match[1], folder)
				}
			}
		}
		files, err := filepath.Glob(folder + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			name := filepath.Base(file)
			if name != "doc.go" && !strings.HasSuffix(name, "_test.go") && !slices.Contains(listed, name) {
				t.Errorf("the map lacks %s", file)
			}
		}
	}
}

// TestArchitectureNamesTheCode finds each file that the page names, and each name that it says is
// in a file.
func TestArchitectureNamesTheCode(t *testing.T) {
	t.Parallel()
	text, _, _ := strings.Cut(read(t, architecture), "## File map")
	text = strings.Join(strings.Fields(text), " ")
	for _, name := range anyFile.FindAllString(text, -1) {
		if len(filesNamed(t, name)) == 0 {
			t.Errorf("%s names %s, which is not there", architecture, name)
		}
	}
	for _, match := range symbol.FindAllStringSubmatch(text, -1) {
		word := regexp.MustCompile(`\b` + match[1] + `\b`)
		if !slices.ContainsFunc(filesNamed(t, match[2]), func(path string) bool { return word.MatchString(read(t, path)) }) {
			t.Errorf("%s says that %s is in %s, where it is not", architecture, match[1], match[2])
		}
	}
}

// filesNamed are the files of the core whose path ends so.
func filesNamed(t *testing.T, name string) []string {
	t.Helper()
	var found []string
	for _, folder := range []string{".", "cdc", "decoder", "sink", "checkpoint", "migrations", "internal/*"} {
		paths, err := filepath.Glob(filepath.Join(folder, filepath.Base(name)))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if strings.HasSuffix("/"+filepath.ToSlash(path), "/"+name) {
				found = append(found, path)
			}
		}
	}
	return found
}

var (
	testName     = regexp.MustCompile("`(Test[A-Za-z]+|[a-z_]+_test\\.go)`")
	mutationName = regexp.MustCompile(`mutation "([^"]+)"`)
)

// TestPagesNameTests finds each test and each mutation of the simulation that a page names.
func TestPagesNameTests(t *testing.T) {
	t.Parallel()
	there := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		there[filepath.Base(path)] = true
		for _, match := range function.FindAllStringSubmatch(read(t, path), -1) {
			there[match[1]] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mutations := read(t, "internal/sim/mutation_test.go")
	for _, page := range []string{"docs/TESTING.md", architecture} {
		text := strings.Join(strings.Fields(read(t, page)), " ")
		for _, match := range testName.FindAllStringSubmatch(text, -1) {
			if !there[match[1]] {
				t.Errorf("%s names %s, which is not there", page, match[1])
			}
		}
		for _, match := range mutationName.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(mutations, `{"`+match[1]+`", `) {
				t.Errorf("%s names mutation %q, which is not there", page, match[1])
			}
		}
	}
}

// TestMechanismsHaveTests wants each mechanism that is not obvious to name a test.
func TestMechanismsHaveTests(t *testing.T) {
	t.Parallel()
	_, text, _ := strings.Cut(read(t, architecture), "## Not obvious, and why")
	text, _, _ = strings.Cut(text, "\n## ")
	for _, mechanism := range strings.Split(text, "\n- **")[1:] {
		if !strings.Contains(mechanism, "Test:") && !strings.Contains(mechanism, "Tests:") {
			title, _, _ := strings.Cut(mechanism, "**")
			t.Errorf("%s names no test for %q", architecture, title)
		}
	}
}
