package integration

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestClockSteps steps the wall clocks of Postgres, the broker and the relay by more than their
// timeouts, ahead and back, under load: what runs out by it is an outage, and repeats nothing.
func TestClockSteps(t *testing.T) {
	t.Parallel()
	const step = 25 * time.Minute // brokers refuse a record whose clock is an hour ahead of theirs
	for _, delivery := range deliveries {
		t.Run(delivery, func(t *testing.T) {
			if delivery != exactly {
				long(t)
			}
			// One that is open at a step ends by it.
			impatient := map[string]string{"transaction.abort.timed.out.transaction.cleanup.interval.ms": "20"}
			env := Setup(t, Needs{OwnPostgres: true, Kafka: Own, KafkaConfig: impatient, Clocks: true})
			env.Init(t)
			relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
			relay.Ready(t, 30*time.Second)
			work := env.Workload(t, WorkloadOptions{Rate: 1000, NoLarge: true})
			clocks := env.Clocks
			// Kafka's goes ahead alone: a broker that was set back runs none of its quorum's timers
			// until the time has come again.
			for _, to := range []struct {
				name  string
				clock *Clock
				ahead time.Duration
			}{
				{"kafka", clocks.Kafka, step},
				{"postgres", clocks.Postgres, step},
				{"relay", clocks.Relay, step},
				{"postgres", clocks.Postgres, -step},
				{"relay", clocks.Relay, -step},
				{"kafka", clocks.Kafka, 2 * step},
				{"postgres", clocks.Postgres, 0},
				{"relay", clocks.Relay, 0},
			} {
				work.WaitCommitted(t, work.Committed()+500)
				to.clock.Step(t, to.ahead)
				work.WaitCommitted(t, work.Committed()+500)
				relay.Ready(t, time.Minute)
				says, err := strconv.ParseFloat(env.Value(t, "SELECT extract(epoch FROM clock_timestamp())"), 64)
				if off := time.Until(time.Unix(int64(says), 0)) - to.ahead; to.name == "postgres" &&
					(err != nil || off.Abs() > time.Minute) {
					t.Errorf("the clock of Postgres is %s off what it was set to (%v)", off, err)
				}
				t.Logf("clock of %s %s ahead, %d reconnects to Postgres", to.name, to.ahead, reconnects(t, relay))
			}
			notStalled(t, env, relay, step)
			// A transaction, by the word of the broker.
			gone := func() bool { return strings.Contains(relay.Log(), "INVALID_") }
			for i := 0; i < 20 && (i < 3 || delivery == exactly && !gone()); i++ {
				relay.Signal(syscall.SIGSTOP)
				clocks.Kafka.Step(t, time.Duration(3+i)*step) // what is open runs out
				time.Sleep(200 * time.Millisecond)            // ten checks of the broker
				relay.Signal(syscall.SIGCONT)
				work.WaitCommitted(t, work.Committed()+500)
				relay.Ready(t, time.Minute)
			}
			if delivery == exactly && !gone() {
				t.Error("the broker has given up no transaction: was its clock stepped?")
			}
			whole(t, env, work, relay)
		})
	}
}

// notStalled: events that wait for a moment while the relay's clock is stepped have not waited for
// so long.
func notStalled(t *testing.T, env *Env, relay *Relay, step time.Duration) {
	t.Helper()
	env.Kafka.Freeze(0)
	defer env.Kafka.Thaw(0)
	Eventually(t, 10*time.Second, "events in flight", func() bool { return relay.Metrics(t)["walpost_in_flight_events"] > 0 })
	env.Clocks.Relay.Step(t, step)
	defer env.Clocks.Relay.Step(t, 0)
	if _, body := relay.Get("/readyz"); strings.Contains(body, "25m") {
		t.Errorf("events that are in flight for a moment: %s", body)
	}
}

// TestClocksFarApart steps a clock further than the brokers take: the relay stops and says so, and
// goes on once the clocks are right.
func TestClocksFarApart(t *testing.T) {
	long(t)
	t.Parallel()
	env := Setup(t, Needs{OwnPostgres: true, Kafka: Own, Clocks: true})
	env.Init(t)
	work := env.Workload(t, WorkloadOptions{Rate: 1000, NoLarge: true})
	const far = 2 * time.Hour
	for _, step := range []struct {
		clock         *Clock
		ahead, relays time.Duration
	}{{env.Clocks.Relay, far, far}, {env.Clocks.Kafka, -far, 0}} {
		relay := env.Run(t, "WALPOST_MAX_IN_FLIGHT_BYTES=1MiB")
		relay.Ready(t, 30*time.Second)
		work.WaitCommitted(t, work.Committed()+500)
		step.clock.Step(t, step.ahead)
		if code := relay.Wait(t, 30*time.Second); code != 3 {
			t.Fatalf("exit code %d with clocks that are two hours apart, want 3", code)
		}
		hour := time.Now().Add(step.relays).UTC().Format("2006-01-02T15")
		if last := lastLines(relay.Log(), 1); !strings.Contains(last, "INVALID_TIMESTAMP") ||
			!strings.Contains(last, "which says "+hour) {
			t.Errorf("want a word on the clock, which says %s, got %s", hour, last)
		}
		step.clock.Step(t, 0)
	}
	relay := env.Run(t)
	relay.Ready(t, 30*time.Second)
	work.WaitCommitted(t, work.Committed()+500)
	work.Stop(t)
	env.Check(t, work).Assert(t, 2*inAMiB) // a position that the brokers refuse as well is not stored
	relay.Stop(t)
}
