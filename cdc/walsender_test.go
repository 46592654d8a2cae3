package cdc

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestBusyWalsender has Postgres decode a large transaction of another table, for much longer than
// it may be silent. Without a timeout, Postgres 18 sends as little as 15 does.
func TestBusyWalsender(t *testing.T) {
	if os.Getenv("WALPOST_TEST_LONG") == "" {
		t.Skip("how long a walsender is busy depends on the machine: set WALPOST_TEST_LONG=1. " +
			"TestSignOfLife has the rule")
	}
	t.Parallel()
	for _, major := range []int{14, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			f := setup(t, major, map[string]string{"wal_sender_timeout": "10min", "logical_decoding_work_mem": "64kB"})
			f.exec("CREATE TABLE big (i int)")
			asPlainRole(f)
			s := f.start()
			s.interval, s.silence = 100*time.Millisecond, 2*time.Second
			longest := inspectOften(t, f, s)
			throttle(t, s)
			f.exec("INSERT INTO big SELECT generate_series(1, 600000)")
			f.exec("INSERT INTO outbox VALUES (1, 'x')")
			read, quiet := time.Now(), time.Duration(0)
			for {
				m, err := s.Next(t.Context())
				if err != nil {
					t.Fatalf("a walsender at work was given up after %s: %v", time.Since(read), err)
				}
				quiet, read = max(quiet, time.Since(read)), time.Now()
				if m.Kind == Data && m.Data[0] == 'I' {
					break
				}
			}
			t.Logf("quiet for %s, decoding for %s", quiet, time.Duration(longest.Load()))
			if quiet < 2*s.silence {
				t.Fatalf("quiet for %s at most: this test proves nothing", quiet)
			}
			if busy := time.Duration(longest.Load()); busy < quiet/2 {
				t.Errorf("Decoding was %s at most, and the walsender quiet for %s", busy, quiet)
			}
			eventually(t, "the end of decoding", func() bool { return s.Decoding() == 0 })
		})
	}
}

// asPlainRole takes away what only superusers and members of pg_read_all_stats see.
func asPlainRole(f *fixture) {
	f.exec("CREATE ROLE plain LOGIN REPLICATION")
	f.cfg.Postgres = f.cfg.Postgres.Copy()
	f.cfg.Postgres.User = "plain"
}

// TestSignOfLife: only two inspections in a row that find the walsender at work on one transaction
// are a sign of life.
func TestSignOfLife(t *testing.T) {
	t.Parallel()
	f := setup(t, 15, nil)
	s := f.start()
	const silent = 10 * time.Second
	busy := func(progress string) Walsender {
		return Walsender{PID: int(s.PID()), Visible: true, Progress: progress}
	}
	waiting := func(waitType string) Walsender {
		return Walsender{PID: int(s.PID()), Visible: true, WaitType: waitType}
	}
	for name, c := range map[string]struct {
		seen  []Walsender
		alive bool
	}{
		"busy after it did not answer": {[]Walsender{waiting("Activity"), busy("1"), busy("1")}, false},
		"nothing seen":                 {nil, false},
		"once":                         {[]Walsender{busy("1")}, false},
		"twice":                        {[]Walsender{busy("1"), busy("1")}, true},
		"two transactions":             {[]Walsender{busy("1"), busy("2")}, false},
		"two, then one of them twice":  {[]Walsender{busy("1"), busy("2"), busy("2")}, true},
		"idle between":                 {[]Walsender{busy("1"), waiting("Activity"), busy("1")}, false},
		"blocked on its client":        {[]Walsender{waiting("Client"), waiting("Client")}, false},
		"waits for the disk":           {[]Walsender{waiting("IO"), waiting("IO")}, true},
		"of another stream":            {[]Walsender{{PID: 1, Visible: true}, {PID: 1, Visible: true}}, false},
		"not for us to see":            {[]Walsender{{PID: int(s.PID())}, {PID: int(s.PID())}}, false},
	} {
		one := &Stream{
			c: s.c, interval: maxStatusInterval, silence: silence,
			heard: time.Now().Add(-silent), serviced: time.Now(),
		}
		one.work.start, one.work.unanswered = one.heard, -1
		one.work.asked.Store(1)
		for _, w := range c.seen {
			one.NoteInspection(View{Walsender: &w})
		}
		if quiet := one.quiet(time.Now()); (quiet < silent/2) != c.alive {
			t.Errorf("%s: quiet for %s, want a sign of life: %t", name, quiet, c.alive)
		}
	}
}

// inspectOften inspects as the relay does, and returns the longest time that Decoding has shown.
func inspectOften(t *testing.T, f *fixture, s *Stream) *atomic.Int64 {
	t.Helper()
	longest := &atomic.Int64{}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(); <-ended })
	go func() {
		defer close(ended)
		var inspector Inspector
		defer inspector.Close()
		for ticker := time.NewTicker(100 * time.Millisecond); ctx.Err() == nil; <-ticker.C {
			view, err := inspector.Inspect(ctx, f.cfg, true)
			if err == nil {
				s.NoteInspection(view)
			}
			longest.Store(max(longest.Load(), int64(s.Decoding())))
		}
	}()
	return longest
}

// throttle lets the walsender run for a fraction of the time.
func throttle(t *testing.T, s *Stream) {
	t.Helper()
	pid := int(s.PID())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(); <-ended })
	go func() {
		defer close(ended)
		for ticker := time.NewTicker(10 * time.Millisecond); ctx.Err() == nil; {
			_ = syscall.Kill(pid, syscall.SIGSTOP) // it may have ended
			for range 4 {
				<-ticker.C
			}
			_ = syscall.Kill(pid, syscall.SIGCONT)
			<-ticker.C
		}
	}()
}

// TestDeadLinkBesideInspections loses packets of the stream only: inspections continue, and find a
// walsender that works for others. That is no sign of life of the stream.
func TestDeadLinkBesideInspections(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		for _, load := range []string{"idle", "under load"} {
			t.Run(fmt.Sprint(major, " ", load), func(t *testing.T) {
				t.Parallel()
				f := setup(t, major, map[string]string{"wal_sender_timeout": "0"})
				f.exec("CREATE TABLE other (i int)")
				asPlainRole(f)
				direct := *f
				addr, swallow := proxy(t, f.cfg.Postgres, 0)
				f.cfg.Postgres = f.cfg.Postgres.Copy()
				f.cfg.Postgres.Host, f.cfg.Postgres.Port = addr.IP.String(), uint16(addr.Port)
				s := f.start()
				s.interval, s.silence = 100*time.Millisecond, time.Second
				inspectOften(t, &direct, s)
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				for ctx.Err() == nil {
					if _, err := s.Next(ctx); err != nil && ctx.Err() == nil {
						t.Fatalf("a server that answers was given up: %v", err)
					}
				}
				if load != "idle" {
					writing(t, f)
				}
				swallow.Store(true)
				start := time.Now()
				for {
					_, err := s.Next(t.Context())
					if err == nil {
						continue
					}
					if !Transient(err) || !strings.Contains(err.Error(), "silent") {
						t.Fatalf("Next = %v", err)
					}
					break
				}
				if took := time.Since(start); took > 20*s.silence {
					t.Errorf("noticed after %s, with a patience of %s", took, s.silence)
				}
			})
		}
	}
}

// writing has a session write what the publication leaves out, until the test ends.
func writing(t *testing.T, f *fixture) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	t.Cleanup(func() { cancel(); <-ended })
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			// It fails once ctx has ended.
			_, _ = f.sql.Exec(ctx, "INSERT INTO other SELECT generate_series(1, 1000)")
		}
	}()
}

// TestOwnPause stops reading for longer than the server may be silent. The server was not silent.
func TestOwnPause(t *testing.T) {
	t.Parallel()
	f := setup(t, 15, nil)
	s := f.start()
	s.interval, s.silence = 100*time.Millisecond, 2*time.Second
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	for ctx.Err() == nil {
		_, _ = s.Next(ctx) // until ctx ends
	}
	pause := time.NewTimer(2 * s.silence)
	<-pause.C
	f.exec("INSERT INTO outbox VALUES (1, 'x')")
	next(t.Context(), t, s, 'C')
}
