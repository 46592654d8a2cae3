package servers

import (
	"strings"
	"testing"
)

// It is not parallel, because CI is a variable of the process.
func TestSummaryOfTestsWithoutServers(t *testing.T) {
	for ci, want := range map[string]string{
		"":     "ran against kafka; skipped without a server: 1\n  TestA: no java; no docker",
		"true": "ran against kafka; FAILED without a server: 1\n  TestA: no java; no docker",
	} {
		t.Setenv("CI", ci)
		r := &registry{used: map[string]bool{"kafka": true}, lacking: map[string]string{"TestA": "no java\nno docker"}}
		if got := r.summary(); !strings.HasSuffix(got, want) {
			t.Errorf("CI=%q: got %q, want %q", ci, got, want)
		}
		r.lacking = nil
		if got := r.summary(); !strings.HasSuffix(got, "without a server: none") {
			t.Errorf("CI=%q: got %q", ci, got)
		}
		r.untested = map[string]string{"TestLong": "takes minutes"}
		if got := r.summary(); !strings.HasSuffix(got, "none\nwalpost integration: NOT TESTED: 1\n  TestLong: takes minutes") {
			t.Errorf("CI=%q: got %q", ci, got)
		}
	}
}
