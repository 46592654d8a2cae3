package relay

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/internal/pgserver"
)

// deafProxy forwards connections to Postgres. One of them, by number, falls silent once its client
// is logged in: what lies between drops its packets. All others work.
func deafProxy(t *testing.T, address string, silent int64) (host string, port uint16) {
	t.Helper()
	return proxy(t, address, func(n int64, _ *atomic.Bool) bool { return n == silent })
}

// proxy forwards connections, and asks of each whether it falls silent once its client is logged
// in. One that is dead drops everything.
func proxy(t *testing.T, address string, mayDie func(n int64, dead *atomic.Bool) bool) (host string, port uint16) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for n := int64(1); ; n++ {
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
			dead := &atomic.Bool{}
			deaf := mayDie(n, dead)
			go forward(server, client, dead, false)
			go forward(client, server, dead, deaf)
		}
	}()
	addr := l.Addr().(*net.TCPAddr)
	return addr.IP.String(), uint16(addr.Port)
}

// forward copies until an end, and drops everything once the connection is dead: after its first
// ReadyForQuery if it may die.
func forward(to, from net.Conn, dead *atomic.Bool, mayDie bool) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			if !dead.Load() {
				_ = to.Close()
			}
			return
		}
		if dead.Load() {
			continue
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
		if mayDie && bytes.Contains(b[:n], []byte{'Z', 0, 0, 0, 5}) {
			dead.Store(true)
		}
	}
}

// TestSilentServerAtAStart: a connection falls silent while a session starts. Another attempt
// succeeds.
func TestSilentServerAtAStart(t *testing.T) {
	t.Parallel()
	for name, silent := range map[string]int64{"the first inspection": 1, "the replication connection": 2, "the inspection while the slot is held": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			proxied := f.cfg.Postgres.Copy()
			proxied.Host, proxied.Port = deafProxy(t, net.JoinHostPort(proxied.Host, strconv.Itoa(int(proxied.Port))), silent)
			proxied.Fallbacks = nil
			f.relay.cfg.CDC.Postgres = proxied
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ended := make(chan error, 1)
			go func() { ended <- f.relay.Run(ctx) }()
			for start := time.Now(); f.relay.Status().State != Streaming; time.Sleep(50 * time.Millisecond) {
				if time.Since(start) > 2*time.Minute {
					t.Fatalf("%s after one connection fell silent the relay is %s", time.Since(start), f.relay.Status().State)
				}
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestStopInsideATransactionAfterFailover: the first transaction of a new timeline is a large one,
// and a session ends within it. Its position lies on the new timeline, although the transaction
// before it ended on the old one: the next session goes on there.
func TestStopInsideATransactionAfterFailover(t *testing.T) {
	t.Parallel()
	f := setup(t)
	standby := f.standby(true)
	f.connect().Close()
	f.store(f.inspect().Slot.Confirmed()) // all of timeline 1
	f.failOver(standby)
	const rows = 300_000
	f.exec("INSERT INTO outbox SELECT i, 't', 'k', repeat('x', 1000) FROM generate_series(1, " + strconv.Itoa(rows) + ") i")
	s := f.resume()
	run, stop := context.WithCancel(t.Context())
	go func() {
		for s.out.Stats().Published["t"] < 5000 {
			time.Sleep(time.Millisecond)
		}
		stop()
	}()
	_ = s.run(run) // ended by stop
	_ = s.finish(t.Context(), &kafkaError{errors.New("an outage for a moment")})
	stored, _, err := f.left().store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if stored.Rows == 0 || stored.Rows >= rows || stored.Timeline != 2 {
		t.Fatalf("stored %v on timeline %d, want a position inside the transaction, on timeline 2", stored.Position, stored.Timeline)
	}
	if again := f.resume(); again.start != stored.Position {
		t.Errorf("the next session starts at %v, stored was %v", again.start, stored.Position)
	}
}

// failOver promotes a standby in place of the server.
func (f *fixture) failOver(standby *pgserver.Server) {
	f.t.Helper()
	if err := f.server.Stop(f.t.Context(), pgserver.Fast); err != nil {
		f.t.Fatal(err)
	}
	f.server = standby
	var err error
	if f.cfg.Postgres, err = pgconn.ParseConfig(standby.URL("postgres")); err != nil {
		f.t.Fatal(err)
	}
	f.relay.cfg.CDC.Postgres = f.cfg.Postgres
	f.exec("SELECT pg_promote()")
}

// TestFailoverUndoesATransaction: a failover undoes a transaction that was published in part. What
// is stored afterwards may lie before the point where the new timeline began, and still counts as
// later than what was undone: a start goes on from it.
func TestFailoverUndoesATransaction(t *testing.T) {
	t.Parallel()
	f := setup(t)
	standby := f.standby(true)
	f.connect().Close()
	confirmed := f.inspect().Slot.Confirmed()
	undone := checkpoint.State{Position: checkpoint.Position{End: confirmed, Commit: confirmed + 1<<20, Rows: 2}, Timeline: 1, At: time.Now()}
	if err := f.left().store.Save(t.Context(), undone); err != nil {
		t.Fatal(err)
	}
	f.failOver(standby)
	want := checkpoint.Position{End: confirmed}
	s := f.resume()
	if stored, _, err := f.left().store.Load(t.Context()); err != nil || stored.Position != want {
		t.Errorf("after the failover %v on timeline %d is stored (%v), want %v", stored.Position, stored.Timeline, err, want)
	}
	idle := checkpoint.Position{End: confirmed + 1} // as a keepalive brings one, before the point of the switch
	if err := s.save(t.Context(), idle); err != nil {
		t.Fatal(err)
	}
	s.stream.Close()
	f.left().closeAll()
	f.relay, f.first, f.last = New(f.relay.cfg), newHandover(), nil
	if again := f.resume(); again.start != idle || again.timeline != 2 {
		t.Errorf("the next start goes on from %v on timeline %d, want %v on 2", again.start, again.timeline, idle)
	}
}

// TestPosKeepsItsTimeline: an event of the old timeline that is published after a failover has the
// place in the stream that it would have had before, so consumers that saw it then know it again.
func TestPosKeepsItsTimeline(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'before')")
	f.failOver(f.standby(true))
	f.exec("INSERT INTO outbox VALUES (2, 't', 'k', 'after')")
	f.connect()
	s := f.resume()
	run, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	go func() {
		for run.Err() == nil && s.out.Stats().Published["t"] < 2 {
			time.Sleep(time.Millisecond)
		}
		stop()
	}()
	_ = s.run(run) // ended by stop
	client, err := kgo.NewClient(kgo.SeedBrokers(f.broker.ListenAddrs()...), kgo.ConsumeTopics("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var timelines []string
	for _, r := range client.PollFetches(t.Context()).Records() {
		timelines = append(timelines, string(r.Headers[len(r.Headers)-1].Value[:8]))
	}
	if got := strings.Join(timelines, " "); got != "00000001 00000002" {
		t.Errorf("pos of the events begins with %s, want one on timeline 1 and one on 2", got)
	}
}

// TestFormerPrimary: the stored position lies on timeline 2, and the address leads to the former
// primary, which is still on timeline 1 and whose WAL has gone on. However far it goes, it never
// has that position.
func TestFormerPrimary(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.connect()
	state := checkpoint.State{Position: checkpoint.Position{End: f.inspect().Slot.Confirmed() + 8}, Timeline: 2, At: time.Now()}
	if err := f.left().store.Save(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'e1')")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var restored *checkpoint.RestoredError
	if err := f.relay.Run(ctx); !errors.As(err, &restored) {
		t.Errorf("Run = %v, state %v; want to stop", err, f.relay.Status())
	}
}

// busyStore is read while another relay has taken the slot and moved on.
type busyStore struct {
	Store
	meanwhile func() cdc.LSN
}

func (s busyStore) Load(ctx context.Context) (checkpoint.State, bool, error) {
	if _, _, err := s.Store.Load(ctx); err != nil {
		return checkpoint.State{}, false, err
	}
	return checkpoint.State{Position: checkpoint.Position{End: s.meanwhile()}, Timeline: 1, At: time.Now()}, true, nil
}

// TestOutrunWhileItHoldsTheSlot: a relay is paused between its inspection and its reading of the
// state topic. It loses the slot, and another stores what lies past that inspection. That is no
// server which was restored.
func TestOutrunWhileItHoldsTheSlot(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.relay.cfg.NewStore = func(source string) (Store, error) {
		store, err := f.relay.newStore(source)
		return busyStore{store, func() cdc.LSN {
			f.exec("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
			f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'e1')")
			return f.inspect().WALEnd
		}}, err
	}
	if err := f.next().resume(t.Context()); err == nil || !passes(err) {
		t.Errorf("resume = %v, want to try again", err)
	}
}
