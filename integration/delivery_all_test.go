package integration

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/walpost/walpost/integration/process"
)

// TestHundredThousandEvents is the promise in its plainest form: transactions of all kinds from
// several writers, and everything that was committed arrives once, in order per key, byte for byte.
func TestHundredThousandEvents(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{Postgres: major})
			env.Init(t)
			relay := env.Run(t)
			work := env.Workload(t, WorkloadOptions{Events: 100_000})
			relay.Ready(t, 30*time.Second)
			work.Wait(t)
			t.Logf("transactions: %s", work.Mix())
			env.Check(t, work).Assert(t, 0)
			relay.Stop(t)
			env.Check(t, work).Assert(t, 0)
		})
	}
}

// TestEveryServer runs the same in short on the versions between.
func TestEveryServer(t *testing.T) {
	t.Parallel()
	for _, major := range []int{14, 16, 17} {
		t.Run(fmt.Sprint("postgres ", major), func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{Postgres: major})
			env.Init(t)
			relay := env.Run(t)
			work := env.Workload(t, WorkloadOptions{Events: 10_000})
			relay.Ready(t, 30*time.Second)
			work.Wait(t)
			env.Check(t, work).Assert(t, 0)
			relay.Stop(t)
			env.Check(t, work).Assert(t, 0)
		})
	}
}

// TestTimestamp sends events that come after a silence each: their timestamps are neither of before
// the INSERT nor of after the record could be read. And the relay keeps to one processor.
func TestTimestamp(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major})
		env.Init(t)
		relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
		relay.Ready(t, 30*time.Second)
		for i := range 5 {
			time.Sleep(300 * time.Millisecond) // the silence
			sent := time.Now().Truncate(time.Millisecond)
			env.Exec(t, "INSERT INTO "+env.Table+" (id, aggregatetype, aggregateid, payload) VALUES (gen_random_uuid(), 'order', '1', '{}')")
			records := awaitRecords(t, env, env.Prefix+"order", i+1)
			if r, came := records[i], time.Now(); r.Timestamp.Before(sent) || !r.Timestamp.Before(came) {
				t.Errorf("record %d has %s for a time, was inserted at %s and read at %s", i, r.Timestamp, sent, came)
			}
		}
		if n := relay.Metrics(t)["go_sched_gomaxprocs_threads"]; n != 1 && !process.RaceBuilt() &&
			os.Getenv("GOMAXPROCS") == "" {
			t.Errorf("the relay uses %v processors", n)
		}
		relay.Stop(t)
	})
}
