package integration

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/walpost/walpost/internal/pgserver"
)

// TestKafkaStopsForAMinute takes the broker away under load. The relay stays, keeps its memory
// bounded and its walsender alive, and delivers everything afterwards.
func TestKafkaStopsForAMinute(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{
		Postgres: 15, OwnPostgres: true, Kafka: Own,
		Settings: map[string]string{"wal_sender_timeout": "5s"},
	})
	env.Init(t)
	relay := env.Run(t, "WALPOST_MAX_IN_FLIGHT_BYTES=16MiB")
	work := env.Workload(t, WorkloadOptions{Rate: 3000})
	relay.Ready(t, 30*time.Second)
	work.WaitCommitted(t, 5000)
	pid := env.Value(t, "SELECT active_pid::text FROM pg_replication_slots WHERE slot_name = $1", env.Slot)
	if err := env.Kafka.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	stopped := time.Now()
	Eventually(t, 30*time.Second, "the relay to be not ready", func() bool { return !relay.IsReady() })
	_, reasons := relay.Get("/readyz")
	if !strings.Contains(reasons, "Kafka") {
		t.Errorf("/readyz says %q", reasons)
	}
	peak := 0
	for time.Since(stopped) < time.Minute {
		peak = max(peak, residentMiB(t, relay.PID()))
		if !relay.Running() || !relay.IsLive() {
			t.Fatal("the relay is gone")
		}
		if code, _ := relay.Get("/metrics"); code != 200 {
			t.Fatalf("/metrics answers %d during the outage", code)
		}
		time.Sleep(time.Second) // samples
	}
	if in := relay.Metrics(t)["walpost_in_flight_bytes"]; in < 15<<20 || in > 18<<20 {
		t.Errorf("%v bytes in flight at the end of the outage, want about the bound of 16 MiB", in)
	}
	t.Logf("peak resident memory during the outage: %d MiB, with at most 16 MiB in flight", peak)
	if peak > 150 {
		t.Errorf("the relay took %d MiB", peak)
	}
	if now := env.Value(t, "SELECT active_pid::text FROM pg_replication_slots WHERE slot_name = $1", env.Slot); now != pid {
		t.Errorf("the walsender is another one: %s, before %s", now, pid)
	}
	if err := env.Kafka.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	work.Stop(t)
	env.Check(t, work).Assert(t, 0)
	relay.Ready(t, 30*time.Second)
	relay.Stop(t)
}

// TestPostgresStopsWhileKafkaIsAway tells Postgres to stop while nothing can be confirmed: the
// relay lets it go.
func TestPostgresStopsWhileKafkaIsAway(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		for _, load := range []string{"full", "one"} {
			t.Run(fmt.Sprintf("postgres %d, %s in flight", major, load), func(t *testing.T) {
				env := Setup(t, Needs{Postgres: major, OwnPostgres: true, Kafka: Faulty})
				env.Init(t)
				relay := env.Run(t, "WALPOST_MAX_IN_FLIGHT_BYTES=1MiB")
				relay.Ready(t, 30*time.Second)
				insert(t, env, "order", "k", 1)
				awaitRecords(t, env, env.Prefix+"order", 1)
				env.Fake.Freeze()
				defer env.Fake.Thaw()
				count := 1
				if load == "full" {
					count = 50_000 // more than fits: the relay has stopped reading
				}
				insert(t, env, "order", "k", count)
				Eventually(t, 10*time.Second, "events in flight", func() bool {
					m := relay.Metrics(t)
					return m["walpost_in_flight_events"] > 0 && (count == 1 || m["walpost_in_flight_bytes"] >= 1<<20)
				})
				stopPostgres(t, env, pgserver.Fast, 15*time.Second)
				env.Fake.Thaw()
				if err := env.Server.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
				relay.Ready(t, 30*time.Second)
				if got := len(awaitRecords(t, env, env.Prefix+"order", 1+count)); got != 1+count {
					t.Errorf("%d records of %d events", got, 1+count)
				}
				relay.Stop(t)
			})
		}
	}
}

// TestUnreachableAtStart starts the relay before its servers: it waits and says why.
func TestUnreachableAtStart(t *testing.T) {
	env := Setup(t, Needs{Postgres: 15, OwnPostgres: true, Kafka: Own})
	env.Init(t)
	stopPostgres(t, env, pgserver.Fast, 15*time.Second)
	if err := env.Kafka.Stop(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	relay := env.Run(t)
	relay.WaitLog(t, 20*time.Second, fmt.Sprintf("127.0.0.1:%d", env.Server.Port()))
	relay.WaitLog(t, 20*time.Second, "connection refused")
	if relay.IsReady() || !relay.IsLive() {
		t.Error("want alive and not ready without Postgres")
	}
	if err := env.Server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	relay.WaitLog(t, 20*time.Second, "Kafka does not answer")
	relay.WaitLog(t, 20*time.Second, env.Brokers[0])
	if relay.IsReady() || !relay.IsLive() {
		t.Error("want alive and not ready without Kafka")
	}
	if err := env.Kafka.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	relay.Ready(t, 60*time.Second)
	insert(t, env, "order", "k", 10)
	awaitRecords(t, env, env.Prefix+"order", 10)
	relay.Stop(t)
}
