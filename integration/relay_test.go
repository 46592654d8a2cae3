package integration

import (
	"fmt"
	"testing"
	"time"
)

// TestHundredThousandEvents is the promise in its plainest form: transactions of all kinds from several writers, and
// everything that was committed arrives once, in order per key, byte for byte.
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
