package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/walpost/walpost/integration/servers"
)

// combination is a version of Postgres with a delivery.
type combination struct {
	major    int
	delivery string
}

func (c combination) String() string { return fmt.Sprintf("postgres %d, %s", c.major, c.delivery) }

// combinations are two in which both versions and both deliveries occur; where time does not matter, all four.
func combinations() []combination {
	two := []combination{{15, "at-least-once"}, {18, exactly}}
	others := []combination{{15, exactly}, {18, "at-least-once"}}
	if longWanted() {
		return append(two, others...)
	}
	servers.Untested("faults of Postgres", fmt.Sprintf("with %s, and with %s: set WALPOST_TEST_LONG=1", others[0], others[1]))
	return two
}

// matrix runs a test with both versions of Postgres and both deliveries.
func matrix(t *testing.T, f func(t *testing.T, major int, delivery string)) {
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			f(t, c.major, c.delivery)
		})
	}
}

// whole ends a workload and then its relay: everything is there, once and in order, for consumers that read committed records alone, and
// nothing comes after.
func whole(t testing.TB, env *Env, work *Workload, relay *Relay) {
	t.Helper()
	work.Stop(t)
	relay.Ready(t, time.Minute)
	env.Check(t, work).Assert(t, 0)
	relay.Stop(t)
	env.Check(t, work).Assert(t, 0)
}

// reconnects is how many streams the relay has had after its first.
func reconnects(t testing.TB, relay *Relay) int {
	t.Helper()
	return int(relay.Metrics(t)[`walpost_reconnects_total{peer="postgres"}`])
}

// walsender is the process that serves the slot; empty = none does.
func walsender(t testing.TB, env *Env) string {
	t.Helper()
	return env.Value(t, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1", env.Slot)
}
