package integration

import (
	"os"
	"testing"
)

// long skips a test that takes longer than a minute, unless WALPOST_TEST_LONG is set. The summary names it.
func long(t testing.TB) {
	t.Helper()
	if os.Getenv("WALPOST_TEST_LONG") != "" {
		return
	}
	servers.leftOut(t.Name())
	t.Skip("takes longer than a minute: set WALPOST_TEST_LONG=1")
}
