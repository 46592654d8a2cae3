package cdc

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/walpost/walpost/internal/pgserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a server with an outbox, a publication and a slot.
type fixture struct {
	t      *testing.T
	server *pgserver.Server
	sql    *pgx.Conn
	cfg    Config
}

func setup(t *testing.T, major int, settings map[string]string) *fixture {
	t.Helper()
	server, err := pgserver.Start(t.Context(), pgserver.Options{Major: major, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{t: t, server: server}
	if f.sql, err = pgx.Connect(t.Context(), server.URL("postgres")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.sql.Close(context.Background()) })
	f.exec("CREATE TABLE outbox (id int PRIMARY KEY, payload text)")
	f.exec("CREATE PUBLICATION walpost FOR TABLE outbox WITH (publish = 'insert')")
	postgres, err := pgconn.ParseConfig(server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	f.cfg = Config{
		Postgres: postgres, Slot: "walpost", Publication: "walpost", Tables: []Table{{"public", "outbox"}},
		Log: zerolog.Nop(),
	}
	if made, err := CreateSlot(t.Context(), f.sql, "walpost", false, func(string) {}); err != nil || !made {
		t.Fatalf("CreateSlot = %t, %v", made, err)
	}
	return f
}

func (f *fixture) exec(sql string) {
	f.t.Helper()
	if _, err := f.sql.Exec(f.t.Context(), sql); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
}

func (f *fixture) value(sql string) string {
	f.t.Helper()
	var v string
	if err := f.sql.QueryRow(f.t.Context(), "SELECT ("+sql+")::text").Scan(&v); err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func (f *fixture) confirmed() LSN {
	f.t.Helper()
	return parseLSN(f.value("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'walpost'"))
}

func (f *fixture) start() *Stream {
	f.t.Helper()
	conn, err := Connect(f.t.Context(), f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	stream, err := conn.Start(f.t.Context(), f.confirmed(), false)
	if err != nil {
		conn.Close()
		f.t.Fatal(err)
	}
	f.t.Cleanup(stream.Close)
	return stream
}

// next returns the next plugin message of the given type.
func next(ctx context.Context, t *testing.T, s *Stream, kind byte) Message {
	t.Helper()
	for {
		m, err := s.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if m.Kind == Data && m.Data[0] == kind {
			return m
		}
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestConfirmReachesTheServer(t *testing.T) {
	t.Parallel()
	f := setup(t, 15, nil)
	s := f.start()
	f.exec("INSERT INTO outbox VALUES (1, 'x')")
	next(t.Context(), t, s, 'C')
	end := s.Received()
	ctx, cancel := context.WithCancel(t.Context())
	defer s.WatchContext(ctx)()
	read := make(chan error, 1)
	go func() {
		for {
			if _, err := s.Next(ctx); err != nil {
				read <- err
				return
			}
		}
	}()
	// Next waits for the server now. Confirm wakes it.
	s.Confirm(end)
	eventually(t, "the confirmed position", func() bool { return f.confirmed() == end })
	s.Confirm(end - 1) // never backwards
	if s.Confirmed() != end {
		t.Errorf("the position went back to %s", s.Confirmed())
	}
	start := time.Now()
	cancel()
	if err := <-read; !errors.Is(err, context.Canceled) || s.Gone() {
		t.Errorf("Next = %v, gone %t, want the end of its context and a stream that lives", err, s.Gone())
	}
	if took := time.Since(start); took > maxStatusInterval/2 {
		t.Errorf("Next noticed the end of its context after %s", took)
	}
	stop, cancelStop := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancelStop()
	if err := s.Stop(stop); err != nil {
		t.Errorf("Stop = %v", err)
	}
	if f.value("SELECT active FROM pg_replication_slots") != "false" {
		t.Error("the slot is still held after Stop")
	}
}

// TestConfirmNeverPassesWhatWasReceived guards against the worst mistake: the server takes any
// position, and the next session would skip what lies before it.
func TestConfirmNeverPassesWhatWasReceived(t *testing.T) {
	t.Parallel()
	f := setup(t, 15, nil)
	s := f.start()
	f.exec("INSERT INTO outbox VALUES (1, 'x')")
	next(t.Context(), t, s, 'C')
	before := f.confirmed()
	s.Confirm(s.Received() + 1<<20)
	var stop *StopError
	for {
		_, err := s.Next(t.Context())
		if err == nil {
			continue
		}
		if !errors.As(err, &stop) || Transient(err) {
			t.Fatalf("Next = %v, want a StopError", err)
		}
		break
	}
	if err := s.Stop(t.Context()); !errors.As(err, &stop) {
		t.Errorf("Stop = %v, want a StopError", err)
	}
	if now := f.confirmed(); now != before {
		t.Errorf("confirmed %s, before %s", now, before)
	}
}

// TestStatusGoesOutWhileNothingIsRead waits for longer than wal_sender_timeout, and than the server
// may be silent.
func TestStatusGoesOutWhileNothingIsRead(t *testing.T) {
	t.Parallel()
	f := setup(t, 18, map[string]string{"wal_sender_timeout": "3s"})
	s := f.start()
	s.silence = 3 * time.Second
	pid := f.value("SELECT active_pid FROM pg_replication_slots")
	// More than the sockets hold.
	f.exec("INSERT INTO outbox SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i")
	next(t.Context(), t, s, 'I')
	room := make(chan struct{})
	timer := time.AfterFunc(7*time.Second, func() { close(room) })
	defer timer.Stop()
	if err := s.Wait(t.Context(), room); err != nil {
		t.Fatal(err)
	}
	if now := f.value("SELECT active_pid FROM pg_replication_slots"); now != pid {
		t.Fatalf("the walsender is another one: %s, before %s", now, pid)
	}
	next(t.Context(), t, s, 'C')
}

// TestReadIsAfterTheWait: work on what was in the buffer during a wait begins after it.
func TestReadIsAfterTheWait(t *testing.T) {
	t.Parallel()
	f := setup(t, 18, nil)
	s := f.start()
	f.exec("INSERT INTO outbox SELECT i, 'x' FROM generate_series(1, 1000) i")
	eventually(t, "all of them to be sent", func() bool { // so that many come with one read
		return f.value("SELECT sent_lsn >= pg_current_wal_lsn() FROM pg_stat_replication") == "true"
	})
	read := s.c.reader.bytes
	next(t.Context(), t, s, 'I')
	if s.c.reader.bytes-read < 10_000 {
		t.Fatalf("%d bytes were read at once", s.c.reader.bytes-read)
	}
	room := make(chan struct{}, 1)
	const wait = 3 * time.Second
	time.AfterFunc(wait, func() { room <- struct{}{} })
	if err := s.Wait(t.Context(), room); err != nil {
		t.Fatal(err)
	}
	read, waited := s.c.reader.bytes, time.Now()
	m := next(t.Context(), t, s, 'I')
	if s.c.reader.bytes != read {
		t.Fatal("the buffer was empty")
	}
	if early := waited.Sub(m.Read); early > wait/2 {
		t.Errorf("an event was read %s before the end of the wait", early)
	}
}

// TestIdleStreamOutlivesTheTimeout: a status is sent in time, and whenever the server asks for one.
func TestIdleStreamOutlivesTheTimeout(t *testing.T) {
	t.Parallel()
	for name, interval := range map[string]time.Duration{"by itself": time.Second, "asked": time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, 15, map[string]string{"wal_sender_timeout": "3s"})
			s := f.start()
			s.interval = interval
			ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
			defer cancel()
			defer s.WatchContext(ctx)()
			for {
				if _, err := s.Next(ctx); err != nil {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Fatal(err)
					}
					return
				}
			}
		})
	}
}

func TestSlotInUse(t *testing.T) {
	t.Parallel()
	f := setup(t, 15, nil)
	f.start()
	conn, err := Connect(t.Context(), f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Start(t.Context(), 0, false); !errors.Is(err, ErrSlotInUse) || !Transient(err) {
		t.Fatalf("Start = %v", err)
	}
}

// TestWarningOnTheStream makes the server warn, as newer ones do when they skip rows of a
// publication that they cannot load.
func TestWarningOnTheStream(t *testing.T) {
	t.Parallel()
	f := setup(t, 18, nil)
	s := f.start()
	f.exec("DROP PUBLICATION walpost")
	f.exec("INSERT INTO outbox VALUES (1, 'x')")
	for {
		_, err := s.Next(t.Context())
		if err == nil {
			continue
		}
		var stop *StopError
		if !errors.As(err, &stop) || !strings.Contains(err.Error(), "publication") {
			t.Fatalf("Next = %v, want a StopError about the publication", err)
		}
		return
	}
}

func TestPacedReader(t *testing.T) {
	t.Parallel()
	r := &pacedReader{conn: io.LimitReader(zeros{}, 10)}
	buf := make([]byte, 8)
	read := func() time.Duration {
		start := time.Now()
		if _, err := r.Read(buf); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	r.behind = true
	read() // a full one: there is more
	if r.drained {
		t.Fatal("drained after a full read")
	}
	read() // a short one
	if !r.drained {
		t.Fatal("not drained after a short read")
	}
	if took := read(); took < gulp {
		t.Errorf("no pause after the socket was drained: %s", took)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// interruptingConn interrupts the stream right before a future deadline is set for the second time.
type interruptingConn struct {
	net.Conn
	times int
	do    func()
}

func (c *interruptingConn) SetReadDeadline(at time.Time) error {
	if at.After(time.Now()) {
		if c.times++; c.times == 2 {
			c.do()
		}
	}
	return c.Conn.SetReadDeadline(at)
}

// TestAnInterruptIsNotOverwritten ends the context at the moment when a second deadline would be
// set.
func TestAnInterruptIsNotOverwritten(t *testing.T) {
	t.Parallel()
	f := setup(t, 15, nil)
	s := f.start()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := s.service(ctx); err != nil { // sends the first status: nothing is due afterwards
		t.Fatal(err)
	}
	s.conn = &interruptingConn{Conn: s.conn, do: func() { cancel(); s.interrupt() }}
	if err := s.service(ctx); err != nil {
		t.Fatal(err)
	}
	if n := s.conn.(*interruptingConn).times; n != 1 {
		t.Fatalf("the deadline was set %d times in one service, an interrupt in between is lost", n)
	}
}

// TestAPositionBeforeTheDeadline: a position comes right before the deadline is set, which
// overwrites its interrupt.
func TestAPositionBeforeTheDeadline(t *testing.T) {
	t.Parallel()
	f := setup(t, 15, nil)
	s := f.start()
	f.exec("INSERT INTO outbox VALUES (1, 'x')")
	next(t.Context(), t, s, 'C')
	end := s.Received()
	s.conn = &interruptingConn{Conn: s.conn, times: 1, do: func() { s.Confirm(end) }}
	if err := s.service(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.sent != end {
		t.Errorf("the status named %s, want %s", s.sent, end)
	}
}

// TestWarningAtConnect: the server warns of a collation before the stream starts. That says nothing
// about the stream.
func TestWarningAtConnect(t *testing.T) {
	t.Parallel()
	f := setup(t, 16, nil)
	f.exec("UPDATE pg_database SET datcollversion = '1.0' WHERE datname = 'postgres'")
	conn, err := Connect(t.Context(), f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.warning.Load() == nil {
		t.Log("this build of Postgres did not warn: the test makes a warning up")
		conn.notice(&pgconn.Notice{
			SeverityUnlocalized: "WARNING", Code: "01000", Message: "collation version mismatch",
		})
	}
	if _, err := conn.Start(t.Context(), f.confirmed(), false); err != nil {
		t.Fatal(err)
	}
}

func TestNoPaceOverTLS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		conn net.Conn
		want bool
	}{{&net.TCPConn{}, true}, {&tls.Conn{}, false}} {
		s := &Stream{c: &Conn{reader: &pacedReader{}}, conn: c.conn}
		s.SetBehind(true)
		if s.c.reader.behind != c.want {
			t.Errorf("%T is paced: %t, want %t", c.conn, s.c.reader.behind, c.want)
		}
	}
}
