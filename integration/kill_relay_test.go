package integration

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/walpost/walpost/integration/wait"
)

// TestKillTheRelay kills the relay twenty times under load. Nothing is lost or reordered, and what
// is repeated is younger than the position that was stored when the next relay started.
func TestKillTheRelay(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) {
			t.Parallel() // beside the other
			env := Setup(t, Needs{Postgres: major})
			env.Init(t)
			relay := env.Run(t)
			work := env.Workload(t, WorkloadOptions{Rate: 3000})
			relay.Ready(t, 30*time.Second)
			var starts starts
			for range 20 {
				time.Sleep(time.Duration(100+rand.IntN(900)) * time.Millisecond) // the moment is random, not awaited
				relay.Kill()
				starts.add(t, env)
				relay = env.Run(t)
				relay.Ready(t, 30*time.Second)
			}
			work.Stop(t)
			report := env.Check(t, work)
			report.Assert(t, 20*8*inAMiB) // what may be in flight; checked below, one by one
			if len(report.Repeats) == 0 {
				t.Error("twenty kills under load repeated nothing: were they kills?")
			}
			starts.check(t, report)
			t.Logf("20 kills, %d events, %d repeats (%.1f a kill)", report.Expected, len(report.Repeats),
				float64(len(report.Repeats))/20)
			relay.Stop(t)
			again := env.Check(t, work)
			again.Assert(t, len(report.Repeats))
		})
	}
}

// TestTerminateTheRelay stops the relay in order under load, and starts it again: no event is
// repeated.
func TestTerminateTheRelay(t *testing.T) {
	env := Setup(t, Needs{Postgres: 15})
	env.Init(t)
	relay := env.Run(t)
	work := env.Workload(t, WorkloadOptions{Rate: 5000})
	relay.Ready(t, 30*time.Second)
	for range 8 {
		time.Sleep(time.Duration(200+rand.IntN(500)) * time.Millisecond) // the moment is random, not awaited
		deadline := wait.In(30 * time.Second)
		relay.Stop(t) // exit code 0
		if deadline.Over() {
			t.Errorf("the stop took %s", deadline)
		}
		if stored, confirmed := storedPosition(t, env), confirmedLSN(t, env); confirmed != stored.End {
			t.Errorf("after a clean stop %s is stored and %s confirmed", stored.End, confirmed)
		}
		relay = env.Run(t)
		relay.Ready(t, 30*time.Second)
	}
	work.Stop(t)
	env.Check(t, work).Assert(t, 0)
}

// TestTerminateInsideATransaction stops the relay in the middle of one large transaction: the next
// one goes on with the row that follows.
func TestTerminateInsideATransaction(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Postgres: 18})
	env.Init(t)
	relay := env.Run(t, "WALPOST_MAX_IN_FLIGHT_BYTES=1MiB")
	relay.Ready(t, 30*time.Second)
	const rows = 300_000
	env.Exec(t, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers)
		SELECT gen_random_uuid(), 'order', (i % 50)::text, 'Placed', jsonb_build_object('agg', (i % 50)::text, 'seq', i), jsonb_build_object('seq', i::text)
		FROM generate_series(1, $1::int) i`, rows)
	stops := 0
	for i := range 3 {
		if i > 0 && storedPosition(t, env).Rows == 0 {
			break // all of it is published
		}
		Eventually(t, time.Minute, "some rows to be published", func() bool {
			m := relay.Metrics(t)
			return m[`walpost_events_published_total{topic="`+env.Prefix+`order"}`] > 5000
		})
		relay.Stop(t)
		if storedPosition(t, env).Rows > 0 {
			stops++
		}
		relay = env.Run(t, "WALPOST_MAX_IN_FLIGHT_BYTES=1MiB")
		relay.Ready(t, 30*time.Second)
	}
	if stops == 0 {
		t.Error("no stop came inside the transaction")
	}
	t.Logf("%d stops came inside the transaction", stops)
	records := awaitRecords(t, env, env.Prefix+"order", rows)
	seen := map[string]bool{}
	for _, r := range records {
		id := string(r.Headers[0].Value)
		if seen[id] {
			t.Fatalf("event %s was published twice", id)
		}
		seen[id] = true
	}
	if len(seen) != rows {
		t.Fatalf("%d events, want %d", len(seen), rows)
	}
	relay.Stop(t)
}

// TestSecondSignalEndsAtOnce sends SIGTERM twice while nothing can be drained.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	env := Setup(t, Needs{Kafka: Faulty})
	env.Init(t)
	relay := env.Run(t)
	relay.Ready(t, 30*time.Second)
	insert(t, env, "order", "k", 1)
	awaitRecords(t, env, env.Prefix+"order", 1)
	env.Fake.Freeze()
	defer env.Fake.Thaw()
	insert(t, env, "order", "k", 100)
	Eventually(t, 10*time.Second, "events in flight", func() bool { return relay.Metrics(t)["walpost_in_flight_events"] > 0 })
	relay.Term()
	relay.WaitLog(t, 10*time.Second, "stopping")
	if !relay.Running() {
		t.Fatal("the relay ended with events in flight")
	}
	time.Sleep(time.Second) // two signals within half a second are one stop
	deadline := wait.In(2 * time.Second)
	relay.Term()
	if code := relay.Wait(t, 5*time.Second); code != 1 {
		t.Errorf("exit code %d after a second signal, want 1", code)
	}
	if deadline.Over() {
		t.Errorf("the second signal took %s", deadline)
	}
}

// TestDrainTimeout ends with code 1 when what is in flight cannot be confirmed in time, and loses
// nothing.
func TestDrainTimeout(t *testing.T) {
	env := Setup(t, Needs{Kafka: Faulty})
	env.Init(t)
	relay := env.Run(t, "WALPOST_DRAIN_TIMEOUT=2s")
	relay.Ready(t, 30*time.Second)
	insert(t, env, "order", "k", 1)
	awaitRecords(t, env, env.Prefix+"order", 1)
	env.Fake.Freeze()
	insert(t, env, "order", "k", 100)
	Eventually(t, 10*time.Second, "events in flight", func() bool { return relay.Metrics(t)["walpost_in_flight_events"] > 0 })
	relay.Term()
	if code := relay.Wait(t, 15*time.Second); code != 1 {
		t.Errorf("exit code %d after a drain that failed, want 1", code)
	}
	env.Fake.Thaw()
	relay = env.Run(t)
	relay.Ready(t, 30*time.Second)
	env.CheckTruth(t, env.ReadTruth(t)).Assert(t, 100)
}

// TestSecondRelayTakesOver starts two relays on one slot: the second waits, alive and not ready,
// and takes over.
func TestSecondRelayTakesOver(t *testing.T) {
	env := Setup(t, Needs{Postgres: 15})
	env.Init(t)
	first := env.Run(t, "WALPOST_MAX_IN_FLIGHT_BYTES=1MiB")
	first.Ready(t, 30*time.Second)
	work := env.Workload(t, WorkloadOptions{Rate: 1000})
	second := env.Run(t)
	second.WaitLog(t, 20*time.Second, "another relay has the slot")
	if second.IsReady() || !second.IsLive() {
		t.Errorf("the waiting relay: ready %t, live %t; want false, true", second.IsReady(), second.IsLive())
	}
	work.WaitCommitted(t, 2000)
	var starts starts
	starts.add(t, env)
	first.Kill()
	start := time.Now()
	second.Ready(t, 10*time.Second)
	t.Logf("took over after %s", time.Since(start).Round(time.Millisecond))
	work.WaitCommitted(t, 4000)
	work.Stop(t)
	second.Stop(t)
	report := env.Check(t, work)
	report.Assert(t, inAMiB)
	starts.check(t, report)
}

// TestPausedRelayDoesNoHarm stops a relay past the walsender's patience, lets another take over,
// and wakes it up: it must not spoil what the other has stored.
func TestPausedRelayDoesNoHarm(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Postgres: 15, OwnPostgres: true, Settings: map[string]string{"wal_sender_timeout": "3s"}})
	env.Init(t)
	const bound = "WALPOST_MAX_IN_FLIGHT_BYTES=1MiB"
	first := env.Run(t, bound)
	first.Ready(t, 30*time.Second)
	work := env.Workload(t, WorkloadOptions{Rate: 1000})
	work.WaitCommitted(t, 2000)
	second := env.Run(t, bound)
	second.WaitLog(t, 20*time.Second, "another relay has the slot")
	first.Signal(syscall.SIGSTOP)
	second.Ready(t, 30*time.Second)
	work.WaitCommitted(t, work.Committed()+2000)
	first.Signal(syscall.SIGCONT)
	first.WaitLog(t, 20*time.Second, "another relay has the slot")
	work.WaitCommitted(t, work.Committed()+1000)
	work.Stop(t)
	env.Check(t, work).Assert(t, 2*inAMiB) // what each may have behind the stored position
	second.Stop(t)
	first.Ready(t, 20*time.Second) // and not: exit 3 because its old record hides the newer one
	first.Stop(t)
	env.Check(t, work).Assert(t, 2*inAMiB)
}
