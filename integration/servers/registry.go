package servers

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// registry holds the servers that all tests of a binary share, and what the summary says about
// them. The first test that needs a server starts it; close stops it.
type registry struct {
	mu       sync.Mutex
	postgres map[int]*Postgres
	kafka    *Brokers
	used     map[string]bool   // what served, for the summary
	lacking  map[string]string // test without its servers -> why
	untested map[string]string // test that was skipped for another reason -> why
	closers  []func() error
}

var shared = &registry{
	postgres: map[int]*Postgres{}, used: map[string]bool{},
	lacking: map[string]string{}, untested: map[string]string{},
}

// Missing skips a test whose servers cannot be had, and remembers it for the summary. Where CI is
// set it fails the test instead: there a run that proved nothing must not be green.
func Missing(t testing.TB, err error) {
	t.Helper()
	shared.mu.Lock()
	shared.lacking[t.Name()] = err.Error()
	shared.mu.Unlock()
	if inCI() {
		t.Fatal(err)
	}
	t.Skip(err)
}

// Untested puts a line into the summary: what was not tested, and why.
func Untested(what, why string) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.untested[what] = why
}

// Note puts a server of a test's own into the summary.
func Note(format string, args ...any) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.usedLocked(format, args...)
}

// AtEnd runs f in Close.
func AtEnd(f func() error) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.closers = append(shared.closers, f)
}

// Close stops the shared servers and removes what the harness has built.
func Close() { shared.close() }

// Summary says what the tests ran against, and what could not run.
func Summary() string { return shared.summary() }

func (r *registry) usedLocked(format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if !r.used[what] {
		r.used[what] = true
		Progress("using " + what)
	}
}

func inCI() bool { return os.Getenv("CI") != "" }

// close stops the shared servers, the last one first.
func (r *registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, closer := range slices.Backward(r.closers) {
		if err := closer(); err != nil {
			Progress(err.Error())
		}
	}
	r.closers = nil
}

// summary says in one or more lines what the tests ran against, and which could not run: they
// failed where CI is set, and were skipped elsewhere.
func (r *registry) summary() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := slices.Sorted(maps.Keys(r.used))
	if len(used) == 0 {
		used = []string{"no server"}
	}
	outcome := "skipped"
	if inCI() {
		outcome = "FAILED"
	}
	summary := "walpost integration: ran against " + strings.Join(used, ", ")
	if len(r.lacking) == 0 {
		summary += "; " + outcome + " without a server: none"
	} else {
		summary += fmt.Sprintf("; %s without a server: %d", outcome, len(r.lacking)) + reasons(r.lacking)
	}
	if len(r.untested) > 0 {
		summary += fmt.Sprintf("\nwalpost integration: NOT TESTED: %d", len(r.untested)) + reasons(r.untested)
	}
	return summary
}

func reasons(byTest map[string]string) string {
	text := ""
	for _, test := range slices.Sorted(maps.Keys(byTest)) {
		text += fmt.Sprintf("\n  %s: %s", test, strings.ReplaceAll(byTest[test], "\n", "; "))
	}
	return text
}

// Progress goes to standard error at once: a fetch of a minute must not be taken for a test that
// hangs.
func Progress(what string) { fmt.Fprintln(os.Stderr, "walpost integration:", what) }
