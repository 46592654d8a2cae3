package cdc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/rs/zerolog"

	"github.com/walpost/walpost/internal/pgserver"
)

// warnings counts what is logged at that level.
type warnings struct{ count int }

func (w *warnings) Run(_ *zerolog.Event, level zerolog.Level, _ string) {
	if level == zerolog.WarnLevel {
		w.count++
	}
}

// TestServerAwaitsStandbys: the standby of synchronized_standby_slots is away, or its slot does not
// exist. The server warns of it on the stream, and reports an error when it stops. Both are
// outages: nothing is left out.
func TestServerAwaitsStandbys(t *testing.T) {
	t.Parallel()
	for _, major := range []int{17, 18} {
		for _, slot := range []string{"away", "dropped"} {
			t.Run(fmt.Sprintf("postgres %d, %s", major, slot), func(t *testing.T) {
				t.Parallel()
				f := setup(t, major, nil)
				f.exec("SELECT pg_drop_replication_slot('walpost')")
				if _, err := CreateSlot(t.Context(), f.sql, "walpost", true, func(string) {}); err != nil {
					t.Fatal(err)
				}
				f.exec("SELECT pg_create_physical_replication_slot('standby', true)")
				f.exec("ALTER SYSTEM SET synchronized_standby_slots = 'standby'")
				f.exec("SELECT pg_reload_conf()")
				if slot == "dropped" {
					f.exec("SELECT pg_drop_replication_slot('standby')")
				}
				said := &warnings{}
				f.cfg.Log = f.cfg.Log.Level(zerolog.InfoLevel).Hook(said)
				s := f.start()
				f.exec("INSERT INTO outbox VALUES (1, 'x')")
				for deadline := time.Now().Add(30 * time.Second); said.count == 0 && time.Now().Before(deadline); {
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					err := nextData(ctx, s)
					cancel()
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Fatalf("Next = %v, want to wait", err)
					}
				}
				if said.count != 1 {
					t.Errorf("the log says %d times that the server waits, want once", said.count)
				}
				stopped := make(chan error, 1)
				go func() { stopped <- f.server.Stop(t.Context(), pgserver.Fast) }()
				if err := nextData(t.Context(), s); err == nil || !Transient(err) {
					t.Errorf("Next = %v while the server stops, want an outage", err)
				}
				s.Close()
				if err := <-stopped; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// nextData skips keepalives.
func nextData(ctx context.Context, s *Stream) error {
	for {
		m, err := s.Next(ctx)
		if err != nil || m.Kind == Data {
			return err
		}
	}
}

// TestWarningAtTheStart: the server warns between START_REPLICATION and the beginning of the
// stream.
func TestWarningAtTheStart(t *testing.T) {
	t.Parallel()
	f := setup(t, 15, nil)
	notice := &pgproto3.NoticeResponse{
		Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: "01000", Message: "rows are skipped",
	}
	warning, err := notice.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	f.cfg.Postgres = f.cfg.Postgres.Copy()
	dial := f.cfg.Postgres.DialFunc
	f.cfg.Postgres.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		return &warningConn{Conn: conn, warning: warning}, err
	}
	conn, err := Connect(t.Context(), f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = conn.Start(t.Context(), 0, false)
	var stop *StopError
	if !errors.As(err, &stop) || !strings.Contains(err.Error(), "rows are skipped") {
		t.Errorf("Start = %v, want a StopError with the warning", err)
	}
}

// warningConn puts a warning before the server's answer to START_REPLICATION.
type warningConn struct {
	net.Conn
	warning []byte
	asked   atomic.Bool
}

func (c *warningConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("START_REPLICATION")) {
		c.asked.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *warningConn) Read(b []byte) (int, error) {
	if c.asked.CompareAndSwap(true, false) {
		return copy(b, c.warning), nil
	}
	return c.Conn.Read(b)
}
