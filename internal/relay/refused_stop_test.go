package relay

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/sink"
)

// TestBadRowBehindAnOutage: an event before a row that can never be published is first without a
// leader, and then given up by the client for an error that it cannot place (an outage, for
// walpost). The hint to skip the row would skip that event.
func TestBadRowBehindAnOutage(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]string{"no key": "(2, 't', '', 'x')", "no topic": "(2, 'no topic!', 'k', 'x')", "denied": "(2, 'u', 'k', 'bad2')"} {
		for delivery, setup := range map[string]func(*testing.T) *fixture{"at least once": setup, "exactly once": exactly} {
			t.Run(name+", "+delivery, func(t *testing.T) {
				t.Parallel()
				f := setup(t)
				f.relay.cfg.Linger = 20 * time.Millisecond
				began, given := time.Now(), false
				f.broker.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
					f.broker.KeepControl()
					r := req.(*kmsg.MetadataRequest)
					if len(r.Topics) != 1 || r.Topics[0].Topic == nil || *r.Topics[0].Topic != "u" {
						return nil, nil, false
					}
					resp := r.ResponseKind().(*kmsg.MetadataResponse)
					denied := kmsg.NewMetadataResponseTopic()
					denied.Topic, denied.ErrorCode = kmsg.StringPtr("u"), kerr.TopicAuthorizationFailed.Code
					resp.Topics = append(resp.Topics, denied)
					return resp, nil, true
				})
				f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
					f.broker.KeepControl()
					r := req.(*kmsg.ProduceRequest)
					if given || !holds(r, "good1") {
						return nil, nil, false
					}
					code := kerr.NotEnoughReplicas.Code
					if time.Since(began) > 3*time.Second {
						given, code = true, kerr.SaslAuthenticationFailed.Code
					}
					return refuse(r, func(string) int16 { return code }), nil, true
				})
				f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'good1')")
				f.exec("INSERT INTO outbox VALUES " + bad)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				err := New(f.relay.cfg).Run(ctx)
				var halt *Halt
				if !errors.As(err, &halt) {
					t.Fatalf("Run = %v", err)
				}
				if got := f.seen("t"); len(got) != 1 {
					t.Errorf("it stops with %v\nand the hint %q\nand consumers see %q", err, halt.Hint, got)
				}
			})
		}
	}
}

// TestBadRowBehindAFailedCommit: the Kafka transaction before a row that can never be published is
// not committed. What is in it comes before the row, and is published before the relay stops.
func TestBadRowBehindAFailedCommit(t *testing.T) {
	t.Parallel()
	f := exactly(t)
	f.relay.cfg.Linger = 20 * time.Millisecond
	var latched atomic.Bool
	failed := false
	f.broker.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.broker.KeepControl()
		if failed || !req.(*kmsg.EndTxnRequest).Commit {
			return nil, nil, false
		}
		failed = true
		for began := time.Now(); !latched.Load() && time.Since(began) < 10*time.Second; {
			time.Sleep(time.Millisecond)
		}
		resp := req.ResponseKind().(*kmsg.EndTxnResponse)
		resp.ErrorCode = kerr.UnknownServerError.Code
		return resp, nil, true
	})
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'good1')")
	f.exec("INSERT INTO outbox VALUES (2, 'no topic!', 'k', 'x')")
	r := New(f.relay.cfg)
	go func() {
		for t.Context().Err() == nil && r.Status().Sink.Errors["illegal_topic"] == 0 {
			time.Sleep(time.Millisecond)
		}
		latched.Store(true)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := r.Run(ctx)
	var halt *Halt
	if !errors.As(err, &halt) {
		t.Fatalf("Run = %v", err)
	}
	if got := f.seen("t"); len(got) != 1 {
		t.Errorf("it stops with %v\nand the hint %q\nand consumers see %q", err, halt.Hint, got)
	}
}

// TestStopWhileRefused: SIGTERM comes while brokers refuse a batch. The event that is named may be
// innocent, and others before it unpublished: the hint does not skip it.
func TestStopWhileRefused(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.relay.cfg.Linger = 300 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.broker.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if !holds(r, "bad4") {
			return nil, nil, false
		}
		cancel()
		time.Sleep(100 * time.Millisecond)
		return refuse(r, func(string) int16 { return kerr.PolicyViolation.Code }), nil, true
	})
	f.exec("INSERT INTO outbox VALUES (2, 't', 'k', 'good2'), (3, 't', 'k', 'good3'), (4, 't', 'k', 'bad4'), (5, 't', 'k', 'good5')")
	err := New(f.relay.cfg).Run(ctx)
	var halt *Halt
	var event *sink.EventError
	if !errors.As(err, &halt) || !errors.As(err, &event) || strings.Contains(halt.Hint, "pg_replication_slot_advance") {
		t.Errorf("Run = %v; want a hint that skips nothing, got %q; consumers see %q", err, halt.Hint, f.seen("t"))
	}
}

// TestMendedRefusalIsForgotten: an event is refused for a moment, and then taken. Sessions after it
// do not send one by one.
func TestMendedRefusalIsForgotten(t *testing.T) {
	t.Parallel()
	f := exactly(t)
	f.relay.cfg.Linger = 20 * time.Millisecond
	refusals := 0
	var ends atomic.Int32
	f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.broker.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if refusals > 0 || !holds(r, "bad1") {
			return nil, nil, false
		}
		refusals++
		return refuse(r, func(string) int16 { return kerr.PolicyViolation.Code }), nil, true
	})
	f.broker.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		f.broker.KeepControl()
		ends.Add(1)
		return nil, nil, false
	})
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'bad1')")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	r := New(f.relay.cfg)
	go func() { done <- r.Run(ctx) }()
	await := func(n int) {
		f.t.Helper()
		for deadline := time.Now().Add(time.Minute); len(f.seen("t")) < n; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("consumers see %d events, want %d", len(f.seen("t")), n)
			}
		}
	}
	await(1)
	f.exec("INSERT INTO outbox SELECT n, 't', 'k', 'x' FROM generate_series(10, 59) n")
	await(51)
	f.exec("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots")
	time.Sleep(2 * time.Second)
	before := ends.Load()
	f.exec("INSERT INTO outbox SELECT n, 't', 'k', 'x' FROM generate_series(100, 149) n")
	await(101)
	if n := ends.Load() - before; n > 20 {
		t.Errorf("50 events of one transaction, after a reconnect and long after the refusal: %d Kafka transactions", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
