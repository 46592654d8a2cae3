package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestHealthSaysAgain: that brokers do not answer is said once, for another reason at once, and
// every five minutes.
func TestHealthSaysAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := NewHealth(zerolog.New(&log))
		for i := range 11 * 60 {
			h.fails(fmt.Sprintf("broker-%d:9092", i%3), fmt.Errorf("dial tcp 10.0.0.%d:9092: connection refused", i%3))
			if i > 60 {
				h.fails("broker-1:9092", errors.New("x509: certificate has expired"))
			}
			time.Sleep(time.Second)
		}
		for reason, want := range map[string]int{"connection refused": 3, "expired": 2} {
			if n := strings.Count(log.String(), reason); n != want {
				t.Errorf("%q: %d lines in eleven minutes, want %d:\n%s", reason, n, want, log.String())
			}
		}
		h.answers()
		if _, _, reconnects := h.State(); reconnects != 1 {
			t.Errorf("%d reconnects", reconnects)
		}
	})
}

// TestHealthOfOneBrokerOfSeveral: while others answer, a broker that does not is an outage only if
// that lasts, and outages that follow each other are one to the log.
func TestHealthOfOneBrokerOfSeveral(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		h := NewHealth(zerolog.New(&log))
		turns := func(failing time.Duration) int {
			for range 10 {
				h.answers()
				h.fails("broker:9092", io.EOF)
				time.Sleep(failing)
				h.fails("broker:9092", io.EOF)
			}
			return strings.Count(log.String(), "does not answer")
		}
		if n := turns(sinceOutage / 2); n != 0 {
			t.Errorf("%d lines of a broker that restarts", n)
		}
		if n := turns(2 * sinceOutage); n != 1 {
			t.Errorf("%d lines of an outage that comes and goes, want 1", n)
		}
		h.answers()
		time.Sleep(2 * newOutage)
		if n := turns(2 * sinceOutage); n != 2 {
			t.Errorf("%d lines of two outages", n)
		}
	})
}

// TestHealthAfterClose: a request that the sink itself gave up says nothing about the brokers.
func TestHealthAfterClose(t *testing.T) {
	t.Parallel()
	h := NewHealth(zerolog.Nop())
	h.answers()
	for _, err := range []error{context.Canceled, kgo.ErrClientClosed, net.ErrClosed} {
		h.fails("broker:9092", fmt.Errorf("dial: %w", err))
		if up, reason, _ := h.State(); !up {
			t.Errorf("%v counts as an outage: %s", err, reason)
		}
	}
}

// TestMissingTopicIsSaidAgain: a topic that events wait for is named once, for another reason at
// once, and every five minutes.
func TestMissingTopicIsSaidAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := &resolver{log: zerolog.New(&log)}
		for i := range 11 * 60 {
			r.report("orders2", kerr.UnknownTopicOrPartition)
			if i > 60 {
				r.report("orders2", kerr.InvalidReplicationFactor)
				r.report("orders3", kerr.UnknownTopicOrPartition)
			}
			time.Sleep(time.Second)
		}
		for line, want := range map[string]int{
			`orders2","message":"topic does not exist`: 3,
			`orders3","message":"topic does not exist`: 2,
			"INVALID_REPLICATION_FACTOR":               2,
		} {
			if n := strings.Count(log.String(), line); n != want {
				t.Errorf("%q: %d lines in eleven minutes, want %d:\n%s", line, n, want, log.String())
			}
		}
	})
}
