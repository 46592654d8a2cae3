package integration

import (
	"os"
	"testing"

	"github.com/walpost/walpost/integration/servers"
)

// long skips a test that takes minutes, unless WALPOST_TEST_LONG is set. The summary names it, so
// that nobody takes a run without it for one with it.
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
	servers.Untested(t.Name(), why)
	t.Skip(why)
}
