package sink

import (
	"errors"
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

// TestSuspect: a batch may be refused because of another event in it, so its events are tried again
// apart. That does not hold for records that the brokers have lost, nor for events never sent.
func TestSuspect(t *testing.T) {
	for name, c := range map[string]struct {
		err  EventError
		want bool
	}{
		"refused with others":      {EventError{Sent: true, Reason: reasonRefused}, true},
		"refused alone":            {EventError{Sent: true, Reason: reasonRefused, Alone: true}, false},
		"never sent":               {EventError{Reason: reasonBadHeaders}, false},
		"an outage":                {EventError{Sent: true, Reason: reasonOutage, Outage: true}, false},
		"records were lost":        {EventError{Sent: true, Reason: reasonDataLoss}, false},
		"records were lost, alone": {EventError{Sent: true, Reason: reasonDataLoss, Alone: true}, false},
	} {
		if got := c.err.Suspect(); got != c.want {
			t.Errorf("%s: doubtful is %t", name, got)
		}
	}
}

// TestLostRecordsStopTheSink: the brokers have lost records that they had confirmed. The client
// must not go on as if nothing had happened.
func TestLostRecordsStopTheSink(t *testing.T) {
	t.Parallel()
	f := setup(t, nil)
	f.mustProduce("orders", "k", "e1", 10)
	f.mustFlush()
	f.refuse("e2", kerr.OutOfOrderSequenceNumber.Code)
	f.mustProduce("orders", "k", "e2", 10)
	var lost *EventError
	if err := f.flush(); !errors.As(err, &lost) || lost.Reason != reasonDataLoss {
		t.Errorf("Flush = %v, want an EventError of lost records", err)
	}
}
