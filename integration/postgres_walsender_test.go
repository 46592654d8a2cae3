package integration

import (
	"syscall"
	"testing"
	"time"

	"github.com/walpost/walpost/internal/pgserver"
)

// TestWalsenderTerminated has an operator end the walsender again and again under load.
func TestWalsenderTerminated(t *testing.T) {
	t.Parallel()
	all := scenes(t, Needs{}, WorkloadOptions{Rate: 500}, wellShaped)
	for i := range 6 {
		for _, s := range all {
			s.work.WaitCommitted(t, s.work.Committed()+100)
			Eventually(t, 10*time.Second, s.name+": a walsender to end", func() bool {
				return s.env.Value(t, "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1", s.env.Slot) == "true"
			})
		}
		await(t, all, time.Minute, "another stream", func(s scene) bool { return reconnects(t, s.relay) > i && s.relay.IsReady() })
	}
	allWhole(t, all)
}

// TestPostgresStopsUnderLoad stops Postgres in its three ways under load. A smart stop waits for
// the sessions of the writers, and for nothing of the relay's.
func TestPostgresStopsUnderLoad(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major, OwnPostgres: true})
		env.Init(t)
		relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
		for _, mode := range []pgserver.StopMode{pgserver.Smart, pgserver.Fast, pgserver.Immediate} {
			work := env.Workload(t, WorkloadOptions{Rate: 1500, Outages: true})
			relay.Ready(t, 30*time.Second)
			work.WaitCommitted(t, 1000)
			if mode == pgserver.Smart {
				smartStop(t, env, work)
			} else {
				stopPostgres(t, env, mode, 15*time.Second)
			}
			Eventually(t, 20*time.Second, "the relay to notice", func() bool { return !relay.IsReady() })
			if err := env.Server.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if mode != pgserver.Smart {
				work.WaitCommitted(t, work.Committed()+500)
			}
			work.Stop(t)
			relay.Ready(t, 30*time.Second)
			env.Check(t, work).Assert(t, 0)
		}
		whole(t, env, env.Workload(t, WorkloadOptions{Events: 500}), relay)
	})
}

// smartStop tells Postgres to stop once all have left, and the writers to leave a moment later.
func smartStop(t testing.TB, env *Env, work *Workload) {
	t.Helper()
	env.Server.Signal(syscall.SIGTERM)
	work.WaitCommitted(t, work.Committed()+1500) // sessions that were there go on
	select {
	case <-env.Server.Done():
		t.Fatal("the smart stop has not waited for the writers: it was none")
	default:
	}
	work.Stop(t)
	stopPostgres(t, env, pgserver.Smart, 15*time.Second)
}
