package integration

import (
	"os"
	"testing"
)

// long skips a test that takes minutes, unless WALPOST_TEST_LONG is set. The summary names it, so that nobody takes a run
// without it for one with it.
func long(t testing.TB) {
	t.Helper()
	if !longWanted() {
		untested(t, "takes minutes: set WALPOST_TEST_LONG=1")
	}
}

func longWanted() bool { return os.Getenv("WALPOST_TEST_LONG") != "" }

// untested skips what cannot be tested here, and says so in the summary.
func untested(t testing.TB, why string) {
	t.Helper()
	noteUntested(t.Name(), why)
	t.Skip(why)
}

// noteUntested puts a line of its own into the summary.
func noteUntested(what, why string) {
	servers.mu.Lock()
	defer servers.mu.Unlock()
	servers.untested[what] = why
}
