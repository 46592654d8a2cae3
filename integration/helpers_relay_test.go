package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walpost/walpost/checkpoint"
)

// smallBound is a bound that an outage of some seconds reaches.
const smallBound = "WALPOST_MAX_IN_FLIGHT_BYTES=8MiB"

// inAMiB is how many events, of those that take least, a bound of 1 MiB lets be in flight.
const inAMiB = (1 << 20) / 512

// halts waits for the relay to stop to protect data: exit code 3, and a log that says these things.
func halts(t testing.TB, relay *Relay, says ...string) {
	t.Helper()
	if code := relay.Wait(t, 30*time.Second); code != 3 {
		t.Fatalf("exit code %d, want 3:\n%s", code, lastLines(relay.Log(), 20))
	}
	for _, text := range append(says, "what_to_do", "nothing was confirmed to Postgres past") {
		if !strings.Contains(relay.Log(), text) {
			t.Errorf("the log does not say %q:\n%s", text, lastLines(relay.Log(), 5))
		}
	}
}

// running returns a relay that has published one event.
func running(t testing.TB, env *Env, vars ...string) *Relay {
	t.Helper()
	env.Init(t)
	relay := env.Run(t, vars...)
	relay.Ready(t, 30*time.Second)
	insert(t, env, "order", "k", 1)
	awaitRecords(t, env, env.Prefix+"order", 1)
	return relay
}

// walEnd is the end of the WAL of the whole server, which others that share it move at any moment.
func walEnd(t testing.TB, env *Env) checkpoint.LSN {
	t.Helper()
	return parseLSN(t, env.Value(t, "pg_current_wal_lsn()"))
}

func onBoth(t *testing.T, f func(t *testing.T, major int)) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) { f(t, major) })
	}
}

// frozen checks that nothing is confirmed past the doubt: the end of the WAL between the alteration
// and the first row that is missing because of it. Before the alteration is too early for that end
// to be read: on a shared server others write, and the relay may confirm what they write until
// then.
func frozen(t testing.TB, env *Env, doubt checkpoint.LSN) {
	t.Helper()
	if confirmed := confirmedLSN(t, env); confirmed > doubt {
		t.Errorf("confirmed %s, past %s where the doubt began", confirmed, doubt)
	}
}

// accepted does what the hints say: what is missing is inserted again, the publication is accepted
// as it is, and a relay started. Nothing of what was published before is repeated.
func accepted(t testing.TB, env *Env, inserted int) *Relay {
	t.Helper()
	env.Exec(t, `WITH gone AS (DELETE FROM outbox WHERE aggregateid = 'lost' RETURNING *)
		INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) SELECT id, aggregatetype, 'found', type, payload FROM gone`)
	env.Init(t, "--accept-gap")
	relay := env.Run(t)
	relay.Ready(t, 30*time.Second)
	records := awaitRecords(t, env, env.Prefix+"order", 1+inserted)
	if len(records) != 1+inserted {
		t.Errorf("%d records, want %d", len(records), 1+inserted)
	}
	return relay
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

// whole ends a workload and then its relay: everything is there, once and in order, for consumers
// that read committed records alone, and nothing comes after.
func whole(t testing.TB, env *Env, work *Workload, relay *Relay) {
	t.Helper()
	work.Stop(t)
	relay.Ready(t, time.Minute)
	env.Check(t, work).Assert(t, 0)
	relay.Stop(t)
	env.Check(t, work).Assert(t, 0)
}

// refused runs init, status and run where none of them may go on: each says these things.
func refused(t testing.TB, env *Env, vars []string, says ...string) {
	t.Helper()
	for _, command := range []string{"init", "status", "run"} {
		code, output := env.Walpost(t, append(vars, "WALPOST_HTTP_ADDR="), command)
		if want := map[string]int{"init": 1, "status": 1, "run": 3}[command]; code != want {
			t.Errorf("walpost %s: exit code %d, want %d:\n%s", command, code, want, lastLines(output, 10))
		}
		for _, text := range says {
			if !strings.Contains(strings.ReplaceAll(output, `\"`, `"`), text) {
				t.Errorf("walpost %s does not say %q:\n%s", command, text, lastLines(output, 10))
			}
		}
	}
}

// warned runs init and status, which both warn, and waits for the same in the log of the relay.
func warned(t testing.TB, env *Env, relay *Relay, says string) {
	t.Helper()
	relay.WaitLog(t, 15*time.Second, says)
	for _, command := range []string{"init", "status"} {
		if _, output := env.Walpost(t, []string{"WALPOST_HTTP_ADDR=" + relay.Addr()}, command); !strings.Contains(output, says) {
			t.Errorf("walpost %s does not say %q:\n%s", command, says, output)
		}
	}
}

// quietly fails if the relay warns of something, except for what the test expects.
func quietly(t testing.TB, relay *Relay, except ...string) {
	t.Helper()
	for line := range strings.Lines(relay.Log()) {
		expected := slices.ContainsFunc(except, func(text string) bool { return strings.Contains(line, text) })
		if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, "what_to_do") && !expected {
			t.Errorf("the relay warns: %s", line)
		}
	}
}

// published is how many events of a type the relay says it has published.
func published(t testing.TB, env *Env, relay *Relay, kind string) float64 {
	t.Helper()
	return relay.Metrics(t)[`walpost_events_published_total{topic="`+env.Prefix+kind+`"}`]
}

// caughtUp returns once the relay has published everything that was committed. The workload must
// have ended.
func caughtUp(t testing.TB, env *Env, relay *Relay) {
	t.Helper()
	insert(t, env, "last", "k", 1) // one relay publishes in the order of the stream
	awaitRecords(t, env, env.Prefix+"last", 1)
	Eventually(t, time.Minute, "nothing to be in flight", func() bool { return relay.Metrics(t)["walpost_in_flight_events"] == 0 })
}
