package integration

import (
	"fmt"
	"testing"
	"time"
)

// matrix runs a test with both versions of Postgres and both deliveries.
func matrix(t *testing.T, f func(t *testing.T, major int, delivery string)) {
	for _, major := range []int{15, 18} {
		for _, delivery := range deliveries {
			t.Run(fmt.Sprintf("postgres %d, %s", major, delivery), func(t *testing.T) {
				t.Parallel()
				f(t, major, delivery)
			})
		}
	}
}

// whole ends a workload and then its relay: everything is there, once and in order, and nothing comes after.
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
