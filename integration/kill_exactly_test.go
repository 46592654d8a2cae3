package integration

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/walpost/walpost/integration/servers"
	"github.com/walpost/walpost/internal/pgserver"
)

// TestExactlyOnceKills kills a relay with exactly-once delivery forty times at random moments,
// under load and inside transactions of 100,000 rows. The same kills of one with at-least-once
// delivery repeat events.
func TestExactlyOnceKills(t *testing.T) {
	t.Parallel()
	for _, delivery := range []string{"exactly-once", "at-least-once"} {
		t.Run(delivery, func(t *testing.T) {
			env := Setup(t, Needs{Postgres: 18})
			env.Init(t)
			kills := 40
			if delivery == "at-least-once" {
				kills = 8
			}
			relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
			work := env.Workload(t, WorkloadOptions{Rate: 3000, Writers: 3, NoLarge: true})
			relay.Ready(t, 30*time.Second)
			for i := range kills {
				if i%10 == 5 {
					work.Transaction(t, 100_000)
				}
				time.Sleep(time.Duration(50+rand.IntN(500)) * time.Millisecond) // the moment is random, not awaited
				relay.Kill()
				relay = env.Run(t, "WALPOST_DELIVERY="+delivery)
				if i%4 != 0 || delivery == "at-least-once" { // some kills come before it streams
					relay.Ready(t, 60*time.Second)
				}
			}
			relay.Ready(t, 60*time.Second)
			if delivery == "exactly-once" {
				whole(t, env, work, relay)
				return
			}
			work.Stop(t)
			if report := env.Check(t, work); len(report.Repeats) == 0 {
				t.Error("at-least-once delivery repeated nothing: these kills prove nothing")
			}
			relay.Stop(t)
		})
	}
}

// TestExactlyOncePostgresCrashes crashes Postgres five times under load.
func TestExactlyOncePostgresCrashes(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Postgres: 15, OwnPostgres: true})
	env.Init(t)
	relay := env.Run(t, exactlyOnce)
	work := env.Workload(t, WorkloadOptions{Rate: 3000, Writers: 3, Outages: true})
	relay.Ready(t, 30*time.Second)
	for i := range 5 {
		work.WaitCommitted(t, work.Committed()+1500)
		if i%2 == 0 {
			env.Server.Kill()
		} else {
			stopPostgres(t, env, pgserver.Immediate, 15*time.Second)
		}
		if err := env.Server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		relay.Ready(t, 30*time.Second)
	}
	whole(t, env, work, relay)
}

// TestExactlyOnceThreeBrokers kills one broker of three, five times under load.
func TestExactlyOnceThreeBrokers(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Postgres: 18, Kafka: OwnThree})
	env.Init(t)
	relay := env.Run(t, exactlyOnce)
	work := env.Workload(t, WorkloadOptions{Rate: 1500, Writers: 3})
	relay.Ready(t, 60*time.Second)
	for i := range 5 {
		work.WaitCommitted(t, work.Committed()+2000)
		env.Kafka.Kill(i % 3)
		work.WaitCommitted(t, work.Committed()+2000)
		if err := env.Kafka.Start(t.Context(), i%3); err != nil {
			t.Fatal(err)
		}
		if err := env.Kafka.WaitInSync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	whole(t, env, work, relay)
}

// TestExactlyOnceZombie stops a relay while it has an open transaction, lets another take over, and
// wakes the first.
func TestExactlyOnceZombie(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Postgres: 15, OwnPostgres: true, Settings: map[string]string{"wal_sender_timeout": "3s"}})
	env.Init(t)
	// A transaction stays open for a while, so that the pause is within one.
	first := env.Run(t, exactlyOnce, "WALPOST_TRANSACTION_INTERVAL=5s", "WALPOST_KAFKA_LINGER=1s")
	first.Ready(t, 30*time.Second)
	work := env.Workload(t, WorkloadOptions{Rate: 2000, Writers: 3, NoLarge: true})
	work.WaitCommitted(t, 2000)
	second := env.Run(t, exactlyOnce)
	second.WaitLog(t, 20*time.Second, "another relay has the slot")
	first.Signal(syscall.SIGSTOP)
	second.Ready(t, 30*time.Second)
	work.WaitCommitted(t, work.Committed()+2000)
	first.Signal(syscall.SIGCONT)
	halts(t, first, "has taken over slot", "fenced")
	work.WaitCommitted(t, work.Committed()+1000)
	whole(t, env, work, second)
}

// TestCommitOutcomeUnknown has the brokers say nothing, or nothing that helps, about the end of a
// transaction.
func TestCommitOutcomeUnknown(t *testing.T) {
	t.Parallel()
	for _, how := range []string{servers.EndLost, servers.EndSwallowed, servers.EndRefused, servers.EndDenied} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{Kafka: Faulty})
			env.Init(t)
			relay := env.Run(t, exactlyOnce)
			relay.Ready(t, 30*time.Second)
			work := env.Workload(t, WorkloadOptions{Rate: 500, Writers: 3, NoLarge: true})
			work.WaitCommitted(t, 500)
			for range 3 {
				env.Fake.FailEnd(t, how, 1)
				Eventually(t, time.Minute, "the end of a transaction to fail",
					func() bool { return env.Fake.Hits(t) > 0 })
				env.Fake.Heal(t)
				relay.Ready(t, 60*time.Second)
				work.WaitCommitted(t, work.Committed()+300)
			}
			whole(t, env, work, relay)
		})
	}
}

// TestExactlyOnceKilledAtTheEnd kills the relay between the last record of a transaction and its
// end, and between the end and the confirmation to Postgres.
func TestExactlyOnceKilledAtTheEnd(t *testing.T) {
	t.Parallel()
	for when, how := range map[string]string{"before the end": servers.EndSwallowed, "after the end": servers.EndLost} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{Kafka: Faulty})
			env.Init(t)
			relay := env.Run(t, exactlyOnce)
			relay.Ready(t, 30*time.Second)
			work := env.Workload(t, WorkloadOptions{Rate: 500, Writers: 3, NoLarge: true})
			for range 5 {
				work.WaitCommitted(t, work.Committed()+200)
				env.Fake.FailEnd(t, how, -1)
				Eventually(t, 10*time.Second, "the end of a transaction", func() bool { return env.Fake.Hits(t) > 0 })
				relay.Kill()
				env.Fake.Heal(t)
				relay = env.Run(t, exactlyOnce)
				relay.Ready(t, 60*time.Second)
			}
			whole(t, env, work, relay)
		})
	}
}

// TestDeliveryChanges switches between the two in both directions, with orderly stops: nothing is
// repeated.
func TestDeliveryChanges(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Postgres: 15})
	env.Init(t)
	work := env.Workload(t, WorkloadOptions{Rate: 2000, Writers: 3})
	for i := range 6 {
		relay := env.Run(t, "WALPOST_DELIVERY="+[]string{"at-least-once", "exactly-once"}[i%2])
		relay.Ready(t, 30*time.Second)
		work.WaitCommitted(t, work.Committed()+1000)
		relay.Stop(t)
	}
	whole(t, env, work, env.Run(t, exactlyOnce))
}
