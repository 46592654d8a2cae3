package sink

import (
	"maps"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

// An alert on the increase of a counter needs the counter from the start.
func TestEveryReasonIsCountedFromTheStart(t *testing.T) {
	f := setup(t, nil)
	known := NoErrors()
	if got := f.sink.Stats().Errors; !maps.Equal(got, known) {
		t.Errorf("a new sink counts %v, want %v", got, known)
	}
	for code := int16(-1); code < 200; code++ {
		reason, hint := classify("orders", kerr.ErrorForCode(code), false)
		if _, there := known[reason]; !there || (hint == "") != (reason == reasonOutage) {
			t.Errorf("code %d: reason %q is not listed, or hint %q", code, reason, hint)
		}
	}
}
