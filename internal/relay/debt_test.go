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

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/checkpoint"
)

// TestStopInTheSessionAfterAFailure: a producer fails, and what is behind the failed event is published. The next session has begun, and
// has not sent the events again yet, when SIGTERM comes: no clean stop, since a start repeats them.
func TestStopInTheSessionAfterAFailure(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]int16{"refused": kerr.PolicyViolation.Code, "outage": kerr.UnknownServerError.Code} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			f.relay.cfg.CreateTopics, f.relay.cfg.Linger = true, 20*time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
			defer cancel()
			seenGood3 := false
			var mended, held atomic.Bool
			f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
				f.broker.KeepControl()
				r := req.(*kmsg.ProduceRequest)
				if holds(r, "good3") && !holds(r, "bad2") {
					seenGood3 = true
				}
				if mended.Load() || !holds(r, "bad2") {
					return nil, nil, false
				}
				held.Store(true)
				if !seenGood3 {
					return refuse(r, func(string) int16 { return kerr.NotEnoughReplicas.Code }), nil, true
				}
				return refuse(r, func(string) int16 { return code }), nil, true
			})
			f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'good1')")
			f.exec("INSERT INTO outbox VALUES (2, 'u', 'k', 'bad2')")
			var later sync.WaitGroup
			defer later.Wait()
			later.Go(func() {
				for !held.Load() && t.Context().Err() == nil {
					time.Sleep(time.Millisecond)
				}
				f.exec("INSERT INTO outbox VALUES (3, 't', 'k', 'good3')")
			})
			r := New(f.relay.cfg)
			defer r.close()
			for r.out == nil || r.out.Err() == nil {
				if err := r.session(ctx); !transient(err) {
					t.Fatalf("a session ended with %v", err)
				}
			}
			mended.Store(true)
			// The next session, as session() does it; SIGTERM right after resume.
			var s *session
			var err error
			for s == nil {
				if s, err = r.resume(ctx); err != nil && !transient(err) {
					t.Fatal(err)
				}
			}
			r.streaming(s)
			cancel()
			err = r.verdict(ctx, s, s.finish(ctx, s.run(ctx)))
			r.retire()
			if err != nil {
				t.Fatalf("session: %v", err)
			}
			if err := r.stopped(ctx); err != nil {
				if !errors.Is(err, ErrDrain) {
					t.Errorf("it stops with %v", err)
				}
				return // it says so
			}
			before := f.seen("t")
			again, stop := context.WithTimeout(t.Context(), 5*time.Second)
			defer stop()
			err = New(f.relay.cfg).Run(again)
			if after := f.seen("t"); strings.Count(strings.Join(after, " "), "good3") > 1 {
				t.Errorf("exit 0 with %q, and a start repeats: %q (%v)", before, after, err)
			}
		})
	}
}

// TestStopWhileARefusedEventGoesAlone: SIGTERM comes while the event that was refused is on its way again, and is taken. What had passed it is
// not sent again yet: no clean stop.
func TestStopWhileARefusedEventGoesAlone(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.relay.cfg.CreateTopics, f.relay.cfg.Linger = true, 20*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	seenGood3, refused := false, false
	var held atomic.Bool
	f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.broker.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if holds(r, "good3") && !holds(r, "bad2") {
			seenGood3 = true
		}
		if !holds(r, "bad2") {
			return nil, nil, false
		}
		held.Store(true)
		switch {
		case !seenGood3:
			return refuse(r, func(string) int16 { return kerr.NotEnoughReplicas.Code }), nil, true
		case !refused:
			refused = true
			return refuse(r, func(string) int16 { return kerr.PolicyViolation.Code }), nil, true
		}
		cancel() // SIGTERM; the brokers take it this time
		time.Sleep(100 * time.Millisecond)
		return nil, nil, false
	})
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'good1')")
	f.exec("INSERT INTO outbox VALUES (2, 'u', 'k', 'bad2')")
	var later sync.WaitGroup
	defer later.Wait()
	later.Go(func() {
		for !held.Load() && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		f.exec("INSERT INTO outbox VALUES (3, 't', 'k', 'good3')")
	})
	if err := New(f.relay.cfg).Run(ctx); err != nil {
		if !errors.Is(err, ErrDrain) {
			t.Errorf("Run = %v", err)
		}
		return // it says so
	}
	before := f.seen("t")
	again, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	err := New(f.relay.cfg).Run(again)
	if after := f.seen("t"); strings.Count(strings.Join(after, " "), "good3") > 1 {
		t.Errorf("exit 0 with %q, and a start repeats: %q (%v)", before, after, err)
	}
}

// partition is a proxy whose present connections can be made to drop everything, without a word to either end.
func partition(t *testing.T, address string) (host string, port uint16, drop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	var mu sync.Mutex
	var dead []*atomic.Bool
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", address)
			if err != nil {
				_ = client.Close()
				continue
			}
			t.Cleanup(func() { _, _ = client.Close(), server.Close() })
			d := &atomic.Bool{}
			mu.Lock()
			dead = append(dead, d)
			mu.Unlock()
			pass := func(to, from net.Conn) {
				b := make([]byte, 64<<10)
				for {
					n, err := from.Read(b)
					if d.Load() {
						if err != nil {
							return
						}
						continue
					}
					if err != nil {
						_ = to.Close()
						return
					}
					if _, err := to.Write(b[:n]); err != nil {
						return
					}
				}
			}
			go pass(server, client)
			go pass(client, server)
		}
	}()
	addr := l.Addr().(*net.TCPAddr)
	return addr.IP.String(), uint16(addr.Port), func() {
		mu.Lock()
		defer mu.Unlock()
		for _, d := range dead {
			d.Store(true)
		}
	}
}

// TestOwnWalsenderIsNoSuccessor: a fault of the network takes the replication connection and the write of the last position. Postgres has our
// own walsender on the slot until wal_sender_timeout. That is no other relay, which would store what comes next: a stop is not clean.
func TestOwnWalsenderIsNoSuccessor(t *testing.T) {
	t.Parallel()
	f := setup(t)
	proxied := f.cfg.Postgres.Copy()
	host, port, drop := partition(t, net.JoinHostPort(proxied.Host, strconv.Itoa(int(proxied.Port))))
	proxied.Host, proxied.Port, proxied.Fallbacks = host, port, nil
	f.relay.cfg.CDC.Postgres = proxied
	var failing atomic.Bool
	var once sync.Once
	f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.broker.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if !failing.Load() || !holds(r, "end_lsn") {
			return nil, nil, false
		}
		once.Do(drop)
		return refuse(r, func(string) int16 { return kerr.UnknownServerError.Code }), nil, true
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- f.relay.Run(ctx) }()
	f.await("a stream", func() bool { return f.relay.Status().State == Streaming })
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'e1')")
	f.await("e1", func() bool { return f.relay.Status().Sink.Published["t"] == 1 })
	f.await("its position", func() bool { st := f.relay.Status(); return st.Stored == st.Received })
	failing.Store(true)
	f.exec("INSERT INTO outbox VALUES (2, 't', 'k', 'e2')")
	f.await("e2", func() bool { return f.relay.Status().Sink.Published["t"] == 2 })
	f.await("waiting", func() bool { return f.relay.Status().State == Waiting })
	stop()
	if err := <-ended; err != nil {
		if !errors.Is(err, ErrDrain) {
			t.Errorf("Run = %v", err)
		}
		return // it says so
	}
	before := f.seen("t")
	failing.Store(false)
	f.exec("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active") // its wal_sender_timeout
	again, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := f.again().Run(again)
	if after := f.seen("t"); strings.Join(after, " ") != "e1 e2" {
		t.Errorf("exit 0 with %q, and a start repeats: %q (%v)", before, after, err)
	}
}

// TestRestoredInsideATransaction: the stored position is inside a transaction that the server does not have any more: a storage
// snapshot, taken after End and before Commit, keeps its timeline.
func TestRestoredInsideATransaction(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.connect().Close()
	view := f.look()
	stored := checkpoint.State{Position: checkpoint.Position{End: view.Slot.Confirmed(), Commit: view.WALEnd + 1<<20, Rows: 2}, Timeline: 1, At: time.Now()}
	if err := f.relay.store.Save(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'e1')")
	for start := range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		err := f.again().Run(ctx)
		cancel()
		var restored *checkpoint.RestoredError
		if !errors.As(err, &restored) {
			t.Errorf("start %d: Run = %v, and consumers see %q; want a RestoredError", start, err, f.seen("t"))
		}
	}
}

// TestStopTakesTheDrainOnce: brokers take neither the position of what is published nor the next event. Both waits of a stop share its time.
func TestStopTakesTheDrainOnce(t *testing.T) {
	t.Parallel()
	f := setup(t)
	var failing atomic.Bool
	f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.broker.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if !failing.Load() || !holds(r, "end_lsn") && !holds(r, "e3") {
			return nil, nil, false
		}
		return refuse(r, func(string) int16 { return kerr.NotEnoughReplicas.Code }), nil, true
	})
	f.relay.cfg.DrainTimeout = 5 * time.Second
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- f.relay.Run(ctx) }()
	f.await("a stream", func() bool { return f.relay.Status().State == Streaming })
	failing.Store(true)
	f.exec("INSERT INTO outbox VALUES (2, 't', 'k', 'e2')")
	f.await("e2", func() bool { return f.relay.Status().Sink.Published["t"] == 1 })
	f.exec("INSERT INTO outbox VALUES (3, 't', 'k', 'e3')")
	f.await("e3", func() bool { return f.relay.Status().Sink.Events == 1 })
	began := time.Now()
	stop()
	err := <-ended
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("a stop with a drain of 5s took %s: %v", took, err)
	}
}
