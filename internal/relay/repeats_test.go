package relay

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/checkpoint"
)

// overtaken inserts good1, bad2 and good3. bad2 has no leader until good3 has passed it on another
// broker, so that they share no request; then each attempt gets what answer says, where zero is
// that the brokers take it.
func (f *fixture) overtaken(answer func() int16) {
	f.t.Helper()
	f.relay.cfg.Linger = 20 * time.Millisecond
	node, _, err := f.broker.AddNode(-1, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(f.broker.ListenAddrs()...))
	if err != nil {
		f.t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(f.t.Context(), 1, 1, nil, "u"); err != nil {
		f.t.Fatal(err)
	}
	for topic, leader := range map[string]int32{"t": 0, "state": 0, "u": node} {
		if err := f.broker.MoveTopicPartition(topic, 0, leader); err != nil {
			f.t.Fatal(err)
		}
	}
	passed := false
	var held atomic.Bool
	f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.broker.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if !holds(r, "bad2") {
			passed = passed || holds(r, "good3")
			return nil, nil, false
		}
		held.Store(true)
		code := kerr.NotEnoughReplicas.Code
		if passed {
			code = answer()
		}
		if code == 0 {
			return nil, nil, false
		}
		return refuse(r, func(string) int16 { return code }), nil, true
	})
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'good1')")
	f.exec("INSERT INTO outbox VALUES (2, 'u', 'k', 'bad2')")
	var later sync.WaitGroup
	f.t.Cleanup(later.Wait)
	later.Go(func() { // while bad2 waits for its next attempt
		for !held.Load() {
			if f.t.Context().Err() != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
		f.exec("INSERT INTO outbox VALUES (3, 't', 'k', 'good3')")
	})
}

// honest checks what a stop says: that a start will repeat events, or else a start repeats none.
func (f *fixture) honest(stop error) {
	f.t.Helper()
	if errors.Is(stop, ErrDrain) {
		return
	}
	if stop != nil {
		f.t.Fatal(stop)
	}
	before := f.seen("t")
	ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Second)
	defer cancel()
	err := f.again().Run(ctx)
	times := map[string]int{}
	for _, value := range f.seen("t") {
		if times[value]++; times[value] > 1 {
			f.t.Errorf("exit 0 with %q, and a start publishes %s again (%v)", before, value, err)
		}
	}
}

// TestStopAfterAFailure: an event is refused, or given up for an outage, and what is behind it is
// published. SIGTERM comes before the next session, or in it before it has sent anything: no clean
// stop, since a start repeats that.
func TestStopAfterAFailure(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]int16{"refused": kerr.PolicyViolation.Code, "outage": kerr.SaslAuthenticationFailed.Code} {
		for when, next := range map[string]bool{"before the next session": false, "in the next session": true} {
			t.Run(name+", "+when, func(t *testing.T) {
				t.Parallel()
				f := setup(t)
				ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
				defer cancel()
				var mended atomic.Bool
				f.overtaken(func() int16 {
					if mended.Load() {
						return 0
					}
					return code
				})
				r, h := f.again(), newHandover()
				defer func() { h.closeAll() }()
				for h.out == nil || h.out.Err() == nil {
					var o outcome
					h, o = r.session(ctx, h)
					var next step
					if h, next = r.decide(h, o); next.action != tryAgain {
						t.Fatalf("a session ended with %v", o.err)
					}
				}
				mended.Store(true)
				if next {
					h = stopAtOnce(ctx, t, cancel, r, h)
				}
				f.honest(r.stopped(ctx, h))
			})
		}
	}
}

// stopAtOnce runs a session that is told to stop once it streams.
func stopAtOnce(ctx context.Context, t *testing.T, stop func(), r *Relay, h handover) handover {
	t.Helper()
	s := r.newSession(h)
	for err := s.resume(ctx); err != nil; err = s.resume(ctx) {
		if !passes(err) {
			t.Fatal(err)
		}
		s = r.newSession(s.handover)
	}
	r.streaming(s)
	stop()
	if err := s.finish(ctx, s.run(ctx)); err != nil {
		t.Fatal(err)
	}
	s.release(false)
	return s.handover
}

// TestStopWhileARefusedEventGoesAlone: SIGTERM comes while the event that was refused is on its way
// again, and is taken. What had passed it is not sent again yet: no clean stop.
func TestStopWhileARefusedEventGoesAlone(t *testing.T) {
	t.Parallel()
	f := setup(t)
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	refused := false
	f.overtaken(func() int16 {
		if !refused {
			refused = true
			return kerr.PolicyViolation.Code
		}
		cancel() // SIGTERM; the brokers take it this time
		time.Sleep(100 * time.Millisecond)
		return 0
	})
	f.honest(f.again().Run(ctx))
}

// TestOwnWalsenderIsNoSuccessor: a fault of the network takes the replication connection and the
// write of the last position. Postgres has our own walsender on the slot until wal_sender_timeout.
// That is no other relay, which would store what comes next: a stop is not clean.
func TestOwnWalsenderIsNoSuccessor(t *testing.T) {
	t.Parallel()
	f := setup(t)
	var mu sync.Mutex
	var conns []*atomic.Bool
	proxied := f.cfg.Postgres.Copy()
	proxied.Host, proxied.Port = proxy(t, net.JoinHostPort(proxied.Host, strconv.Itoa(int(proxied.Port))), func(_ int64, dead *atomic.Bool) bool {
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, dead)
		return false
	})
	proxied.Fallbacks = nil
	f.relay.cfg.CDC.Postgres = proxied
	failing := f.refuses(func() int16 { // and all connections to Postgres fall silent
		mu.Lock()
		defer mu.Unlock()
		for _, dead := range conns {
			dead.Store(true)
		}
		conns = nil
		return kerr.SaslAuthenticationFailed.Code
	}, "end_lsn")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r := f.again()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'e1')")
	f.await("e1", func() bool { return r.Status().Sink.Published["t"] == 1 })
	f.await("its position", func() bool { st := r.Status(); return st.Stored == st.Received })
	failing.Store(true)
	f.exec("INSERT INTO outbox VALUES (2, 't', 'k', 'e2')")
	f.await("e2", func() bool { return r.Status().Sink.Published["t"] == 2 })
	f.await("waiting for it", func() bool {
		st := r.Status()
		return st.State == Waiting && strings.Contains(strings.Join(st.Reasons, ""), "our former connection")
	})
	stop()
	err := <-ended
	failing.Store(false)
	f.exec("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active") // its wal_sender_timeout
	f.relay.cfg.CDC.Postgres = f.cfg.Postgres
	f.honest(err)
}

// TestRestoredInsideATransaction: the stored position is inside a transaction that the server does
// not have any more: a storage snapshot, taken after End and before Commit, keeps its timeline.
func TestRestoredInsideATransaction(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.connect().Close()
	view := f.inspect()
	stored := checkpoint.State{Position: checkpoint.Position{End: view.Slot.Confirmed(), Commit: view.WALEnd + 1<<20, Rows: 2}, Timeline: 1, At: time.Now()}
	if err := f.left().store.Save(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'e1')")
	for start := range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := f.again().Run(ctx)
		cancel()
		var restored *checkpoint.RestoredError
		if !errors.As(err, &restored) {
			t.Errorf("start %d: Run = %v, and consumers see %q; want a RestoredError", start, err, f.seen("t"))
		}
	}
}

// TestStopTakesTheDrainOnce: brokers take neither the position of what is published nor the next
// event. Both waits of a stop share its time.
func TestStopTakesTheDrainOnce(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.relay.cfg.DrainTimeout = 15 * time.Second
	failing := f.refuses(always(kerr.NotEnoughReplicas.Code), "end_lsn", "e3")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r := f.again()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	f.await("a stream", func() bool { return r.Status().State == Streaming })
	failing.Store(true)
	f.exec("INSERT INTO outbox VALUES (2, 't', 'k', 'e2')")
	f.await("e2", func() bool { return r.Status().Sink.Published["t"] == 1 })
	f.exec("INSERT INTO outbox VALUES (3, 't', 'k', 'e3')")
	f.await("e3", func() bool { return r.Status().Sink.Events == 1 })
	began := time.Now()
	stop()
	err := <-ended
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("a stop with a drain of 15s took %s: %v", took, err)
	}
}
