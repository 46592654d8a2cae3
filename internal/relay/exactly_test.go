package relay

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/sink"
)

func exactly(t *testing.T) *fixture {
	f := setup(t)
	f.relay.cfg.ExactlyOnce, f.relay.cfg.Interval, f.relay.cfg.Batch = true, 50*time.Millisecond, 1<<18
	return f
}

// foreign leaves an open transaction on the state topic, as another relay does that is killed
// between its state record and EndTxn. It ends in time for a session that has to start over
// meanwhile: the fake broker loses count of sequences in a partition of two producers now and then.
func (f *fixture) foreign() {
	f.t.Helper()
	other, err := kgo.NewClient(kgo.SeedBrokers(f.broker.ListenAddrs()...), kgo.TransactionalID("walpost/8/walpost"), kgo.TransactionTimeout(8*time.Second))
	if err != nil {
		f.t.Fatal(err)
	}
	defer other.Close()
	if err := other.BeginTransaction(); err != nil {
		f.t.Fatal(err)
	}
	if err := other.ProduceSync(f.t.Context(), &kgo.Record{Topic: "state", Key: []byte("8/walpost"), Value: []byte("{}")}).FirstErr(); err != nil {
		f.t.Fatal(err)
	}
}

// seen returns the values that consumers of committed records see.
func (f *fixture) seen(topic string) []string {
	f.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(f.broker.ListenAddrs()...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		f.t.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListCommittedOffsets(f.t.Context(), topic)
	if err != nil {
		f.t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, 0)
	var values []string
	for next := int64(0); next < end.Offset; {
		for _, r := range client.PollFetches(f.t.Context()).Records() {
			next = r.Offset + 1
			if !r.Attrs.IsControl() {
				values = append(values, string(r.Value))
			}
		}
	}
	return values
}

func (f *fixture) await(what string, ok func() bool) {
	f.t.Helper()
	for start := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			f.t.Fatalf("waited for: %s", what)
		}
	}
}

func (f *fixture) again() *Relay {
	return New(f.relay.cfg)
}

// TestForeignTransactionIsNoGap: another relay's open transaction hides what is stored behind it. A
// start after an orderly stop waits for its end, and does not take what it cannot see yet for a
// gap.
func TestForeignTransactionIsNoGap(t *testing.T) {
	t.Parallel()
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			f := exactly(t)
			f.relay.cfg.ExactlyOnce, f.relay.cfg.Log = delivery == "exactly-once", zerolog.New(zerolog.NewTestWriter(t))
			relay := f.again()
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- relay.Run(ctx) }()
			f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'e1')")
			f.await("e1", func() bool { return relay.Status().Sink.Published["t"] == 1 })
			time.Sleep(200 * time.Millisecond)
			f.foreign()
			f.exec("INSERT INTO outbox VALUES (2, 't', 'k', 'e2')")
			f.await("e2", func() bool { return relay.Status().Sink.Published["t"] == 2 })
			stop()
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			if err := f.again().Run(ctx); err != nil {
				t.Errorf("a start after a clean stop: %v", err)
			}
		})
	}
}

// TestForeignTransactionRepeatsNothing: the same with a kill before the confirmation has reached
// Postgres.
func TestForeignTransactionRepeatsNothing(t *testing.T) {
	t.Parallel()
	f := exactly(t)
	s := f.resume()
	run, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.run(run) }()
	f.foreign()
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'e1'), (2, 't', 'k', 'e2')")
	f.await("both", func() bool { return s.out.Stats().Published["t"] == 2 })
	stop() // kill -9: neither a drain nor a last status
	<-done
	s.stream.Close()
	f.left().closeAll()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	err := f.again().Run(ctx)
	t.Logf("the next relay: %v", err)
	if got := strings.Join(f.seen("t"), " "); got != "e1 e2" {
		t.Errorf("consumers of committed records see %q, want each once", got)
	}
}

// TestTwoRefusedEvents: the brokers tell of the later one first. The relay stops at the earlier
// one, and what is before it is published.
func TestTwoRefusedEvents(t *testing.T) {
	t.Parallel()
	f := exactly(t)
	f.relay.cfg.Linger, f.relay.cfg.Interval, f.relay.cfg.CreateTopics = 100*time.Millisecond, 2*time.Second, true
	ended := make(chan error, 1)
	go func() { ended <- f.relay.Run(t.Context()) }()
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'w1'), (2, 'u', 'k', 'w2'), (3, 'v', 'k', 'w3')")
	f.await("warm", func() bool { p := f.relay.Status().Sink.Published; return p["t"]+p["u"]+p["v"] == 3 })
	var later atomic.Bool
	var early atomic.Int32 // where the first is sent without the later one, its refusal comes all the same
	f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.broker.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if holds(r, "bad3") {
			later.Store(true)
		} else if !holds(r, "bad2") {
			return nil, nil, false
		}
		told := later.Load() || early.Add(1) > 4
		return refuse(r, func(records string) int16 {
			if strings.Contains(records, "bad3") || strings.Contains(records, "bad2") && told && !holds(r, "bad3") {
				return kerr.PolicyViolation.Code
			}
			return kerr.NotEnoughReplicas.Code // slower to answer, or not its fault
		}), nil, true
	})
	f.exec("INSERT INTO outbox VALUES (4, 't', 'k', 'good1'), (5, 'u', 'k', 'bad2'), (6, 'v', 'k', 'bad3')")
	var err error
	select {
	case err = <-ended:
	case <-time.After(2 * time.Minute):
		t.Fatal("the relay goes on")
	}
	var halt *Halt
	if !errors.As(err, &halt) {
		t.Fatal(err)
	}
	if got := strings.Join(f.seen("t"), " "); got != "w1 good1" || !strings.Contains(err.Error(), `publish event "5"`) {
		t.Errorf("stopped with %v, and consumers see %q; want event 5 named, and what is before it published", err, got)
	}
}

// TestStandbyTakesTheReleasedSlot: the brokers gave up our transaction, we let go of the slot, and
// the standby takes it. That is its turn, and no reason to exit.
func TestStandbyTakesTheReleasedSlot(t *testing.T) {
	t.Parallel()
	f := exactly(t)
	s := f.resume()
	f.broker.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		resp := req.ResponseKind().(*kmsg.EndTxnResponse)
		resp.ErrorCode = kerr.InvalidProducerEpoch.Code // after an outage of a minute
		return resp, nil, true
	})
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'e1')")
	err := s.finish(t.Context(), s.run(t.Context()))
	// A standby waits for the slot; it was released in finish, before anybody asks whose it is.
	standby, connErr := cdc.Connect(t.Context(), f.cfg)
	if connErr != nil {
		t.Fatal(connErr)
	}
	defer standby.Close()
	if _, startErr := standby.Start(t.Context(), 0, false); startErr != nil {
		t.Fatal(startErr)
	}
	if !passes(err) || s.superseded(t.Context(), err) {
		t.Errorf("exit 3 though nobody has fenced us: %v", err)
	}
}

// TestKeeperSaysWhyTheSinkEnded: an event failed for an outage of the transaction; the keeper waits
// in Save and is the first to say so.
func TestKeeperSaysWhyTheSinkEnded(t *testing.T) {
	t.Parallel()
	event := &sink.EventError{Sent: true, Outage: true, Reason: "outage", Err: kerr.TransactionAbortable}
	if !passes(event) {
		t.Error("said by Failed: permanent")
	}
	if !passes(&kafkaError{event}) {
		t.Error("said by the keeper: permanent, exit 3")
	}
}

// TestStateTopicRefusesForGood: WRITE on the state topic is revoked while the relay runs. Both
// deliveries stop.
func TestStateTopicRefusesForGood(t *testing.T) {
	t.Parallel()
	for _, delivery := range []string{"at-least-once", "exactly-once"} {
		t.Run(delivery, func(t *testing.T) {
			f := exactly(t)
			f.relay.cfg.ExactlyOnce = delivery == "exactly-once"
			ended := make(chan error, 1)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			go func() { ended <- f.relay.Run(ctx) }()
			f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'e1')")
			f.await("e1", func() bool { return f.relay.Status().Sink.Published["t"] == 1 })
			time.Sleep(300 * time.Millisecond)
			f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
				f.broker.KeepControl()
				r := req.(*kmsg.ProduceRequest)
				if !holds(r, "end_lsn") {
					return nil, nil, false
				}
				return refuse(r, func(records string) int16 {
					if !strings.Contains(records, "end_lsn") {
						return kerr.NotEnoughReplicas.Code // not its fault: sent again
					}
					return kerr.TopicAuthorizationFailed.Code
				}), nil, true
			})
			f.exec("INSERT INTO outbox VALUES (2, 't', 'k', 'e2')")
			select {
			case err := <-ended:
				t.Log(err)
			case <-time.After(time.Minute):
				st := f.relay.Status()
				t.Errorf("a minute later it goes on: %s, %d streams, %v", st.State, st.Reconnects, st.Reasons)
				stop()
				t.Log(<-ended)
			}
		})
	}
}
