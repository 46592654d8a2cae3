package cdc

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

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

// TestServerAwaitsStandbys: the standby in synchronized_standby_slots is away, or its slot is gone. The server warns of it on the
// stream, and when it stops it makes an error of it. Both are outages: nothing was left out.
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
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				if err := nextData(ctx, s); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("Next = %v, want to wait", err)
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

// nextData passes over keepalives.
func nextData(ctx context.Context, s *Stream) error {
	for {
		m, err := s.Next(ctx)
		if err != nil || m.Kind == Data {
			return err
		}
	}
}
