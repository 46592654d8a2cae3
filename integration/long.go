package integration

import (
	"os"
	"testing"
)

// long skips a test that takes long, or varies one that does not, unless WALPOST_TEST_LONG is set. The summary names it.
func long(t testing.TB) {
	t.Helper()
	if os.Getenv("WALPOST_TEST_LONG") != "" {
		return
	}
	servers.leftOut(t.Name())
	t.Skip("NOT TESTED: it takes long, set WALPOST_TEST_LONG=1")
}
