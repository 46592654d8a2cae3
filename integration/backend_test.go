package integration

import (
	"syscall"
	"testing"
	"time"

	"github.com/walpost/walpost/internal/pgserver"
)

// TestWalsenderTerminated has an operator end the walsender again and again under load.
func TestWalsenderTerminated(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major})
		env.Init(t)
		relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
		work := env.Workload(t, WorkloadOptions{Rate: 1500})
		relay.Ready(t, 30*time.Second)
		const times = 6
		for i := range times {
			work.WaitCommitted(t, work.Committed()+300)
			pid := walsender(t, env)
			env.Exec(t, "SELECT pg_terminate_backend($1::int, 5000)", pid)
			Eventually(t, time.Minute, "another walsender", func() bool {
				now := walsender(t, env)
				return now != "" && now != pid
			})
			relay.Ready(t, time.Minute)
			if n := reconnects(t, relay); n <= i {
				t.Errorf("%d reconnects after %d walsenders were ended", n, i+1)
			}
		}
		whole(t, env, work, relay)
		t.Logf("%d walsenders ended", times)
	})
}

// TestPostgresStopsUnderLoad stops Postgres in its three ways under load. A smart stop waits for the sessions of the writers,
// and for nothing of the relay's.
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
