package relay

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/internal/pgserver"
	"github.com/walpost/walpost/sink"
)

// TestTakeoverBetweenInspectionAndHold: this relay inspects while the slot is free; another takes
// it, streams and stores before this one reads the state topic. The position then lies past the WAL
// end of the inspection, and the server was not restored.
func TestTakeoverBetweenInspectionAndHold(t *testing.T) {
	t.Parallel()
	f := setup(t)
	guess := f.inspect()
	conn := f.connect()
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
	f.store(f.inspect().WALEnd)
	if err := f.next().take(t.Context(), conn, guess); !errors.Is(err, errStale) {
		t.Fatalf("take = %v, want %v", err, errStale)
	}
}

// TestStoresBeforeItConfirms: the last session could not store its position. The next one starts
// there, and the first status confirms that to Postgres: a kill after it must find the position
// stored.
func TestStoresBeforeItConfirms(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.connect().Close()
	f.store(f.inspect().Slot.Confirmed())
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
	last := checkpoint.State{Position: checkpoint.Position{End: f.inspect().WALEnd}, Timeline: 1}
	f.left().last = last
	s := f.resume()
	f.runFor(s, 500*time.Millisecond)
	s.stream.Close() // a kill
	stored, _, err := f.left().store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if confirmed := f.inspect().Slot.Confirmed(); confirmed < last.End || stored.End < confirmed {
		t.Fatalf("confirmed %s, stored %s; the session started at %s", confirmed, stored.End, last.End)
	}
}

// TestFinishLetsPostgresStop: a session ends because Kafka fails, and waits for it to come back.
// Postgres, told to stop meanwhile, must not wait for the walsender of that session.
func TestFinishLetsPostgresStop(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := f.resume()
	f.runFor(s, 300*time.Millisecond)
	f.broker.Close()
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
	run, inFlight := context.WithTimeout(t.Context(), time.Minute)
	go func() {
		for run.Err() == nil && s.out.Stats().Events == 0 {
			time.Sleep(time.Millisecond)
		}
		inFlight()
	}()
	_ = s.run(run) // ended by inFlight
	if s.out.Stats().Events == 0 {
		t.Fatal("nothing is in flight: this test proves nothing")
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.finish(ctx, &kafkaError{errors.New("connection refused")}) }()
	time.Sleep(200 * time.Millisecond) // into the wait
	start := time.Now()
	limit, cancel := context.WithTimeout(t.Context(), 40*time.Second) // less than wal_sender_timeout
	defer cancel()
	if err := f.server.Stop(limit, pgserver.Fast); err != nil {
		t.Errorf("Postgres did not stop within %s: %v", time.Since(start), err)
	}
	stop()
	var halt *Halt
	if err := <-ended; !errors.As(err, &halt) || !errors.Is(err, ErrDrain) {
		t.Errorf("a stop with an event in flight ended with %v, want %v", err, ErrDrain)
	}
}

// TestStopDoesNotHideWhy: a signal that comes while a session ends for an operator's eyes leaves
// the reason what it is.
func TestStopDoesNotHideWhy(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := f.resume()
	f.runFor(s, 200*time.Millisecond)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	cause := &sink.EventError{EventID: "e", Err: kerr.MessageTooLarge}
	if err := s.finish(ctx, cause); !errors.Is(err, cause) {
		t.Fatalf("finish = %v, want %v", err, cause)
	}
}

// TestStreamBreaksWhileItStores has one goroutine store while the other finds the connection
// broken.
func TestStreamBreaksWhileItStores(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := f.resume()
	s.stream.Close()
	s.await(t.Context(), func() {
		time.Sleep(50 * time.Millisecond) // the wait finds out meanwhile
		s.storeLast(t.Context(), true)
	})
	if !s.stream.Gone() {
		t.Fatal("nobody noticed that the connection is gone")
	}
}

// TestStandbyBeforeItsPromotion: the address leads to a standby, which lacks the end of what was
// published, and perhaps the slot. The relay waits, and goes on after the promotion.
func TestStandbyBeforeItsPromotion(t *testing.T) {
	t.Parallel()
	for name, keepSlot := range map[string]bool{"with the slot": true, "without the slot": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			standby := f.standby(keepSlot)
			f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
			f.connect().Close()
			f.store(f.inspect().WALEnd)
			if err := f.server.Stop(t.Context(), pgserver.Fast); err != nil {
				t.Fatal(err)
			}
			f.server = standby
			var err error
			if f.cfg.Postgres, err = pgconn.ParseConfig(standby.URL("postgres")); err != nil {
				t.Fatal(err)
			}
			f.relay.cfg.CDC.Postgres = f.cfg.Postgres
			if err := f.next().resume(t.Context()); !errors.Is(err, cdc.ErrStandby) || !passes(err) {
				t.Fatalf("resume = %v, want to wait", err)
			}
			if _, err := cdc.Connect(t.Context(), f.cfg); !errors.Is(err, cdc.ErrStandby) || !cdc.Transient(err) {
				t.Fatalf("connect = %v, want to wait", err)
			}
			f.exec("SELECT pg_promote()")
			if !keepSlot {
				return // what then is missing is missing
			}
			s := f.resume()
			if !s.start.Before(checkpoint.Position{End: f.inspect().WALEnd}) || s.history.Current() != 2 {
				t.Errorf("started at %v on timeline %d, the WAL ends at %s", s.start, s.history.Current(), f.inspect().WALEnd)
			}
		})
	}
}

// standby starts a server on a copy of the data directory.
func (f *fixture) standby(keepSlot bool) *pgserver.Server {
	f.t.Helper()
	must := func(err error) {
		f.t.Helper()
		if err != nil {
			f.t.Fatal(err)
		}
	}
	must(f.server.Stop(f.t.Context(), pgserver.Fast))
	dir, err := os.MkdirTemp("", "walpost-standby")
	must(err)
	f.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	must(os.Chmod(dir, 0o711))
	out, err := exec.CommandContext(f.t.Context(), "cp", "-a", f.server.DataDir(), dir).CombinedOutput()
	if err != nil {
		f.t.Fatalf("copy the data directory: %v: %s", err, out)
	}
	data := filepath.Join(dir, "data")
	must(os.WriteFile(filepath.Join(data, "standby.signal"), nil, 0o644))
	if !keepSlot {
		must(os.RemoveAll(filepath.Join(data, "pg_replslot", "walpost")))
	}
	must(f.server.Restart(f.t.Context()))
	standby, err := pgserver.Start(f.t.Context(), pgserver.Options{Major: 16, Dir: dir})
	must(err)
	f.t.Cleanup(func() { _ = standby.Close() })
	return standby
}
