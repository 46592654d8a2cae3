package integration

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// safeDowngrade is the kind of update that loses nothing.
const safeDowngrade = 2

// TestWeakTransactions has brokers that do not tie each record to its transaction, as those before Kafka 4.0. The relay says
// that this is effectively once, and ten kills under load neither lose nor repeat anything.
func TestWeakTransactions(t *testing.T) {
	t.Parallel()
	for _, version := range []int16{0, 1} {
		t.Run([]string{"transaction.version 0", "transaction.version 1"}[version], func(t *testing.T) {
			if version == 1 {
				long(t) // it differs in what the coordinator keeps on disk
			}
			env := Setup(t, Needs{Kafka: Own})
			env.Init(t)
			updated, err := kadm.NewClient(env.Client(t)).UpdateFeatures(t.Context(), false,
				kadm.FeatureUpdate{Feature: "transaction.version", MaxVersionLevel: version, UpgradeType: safeDowngrade})
			if err != nil || updated.Error() != nil {
				t.Fatal(err, updated.Error())
			}
			relay := env.Run(t, exactlyOnce)
			work := env.Workload(t, WorkloadOptions{Rate: 2000, Writers: 3})
			for range 10 {
				relay.Ready(t, time.Minute)
				relay.WaitLog(t, 10*time.Second, "effectively once")
				time.Sleep(time.Duration(100+rand.IntN(500)) * time.Millisecond) // the moment is random, not awaited
				relay.Kill()
				relay = env.Run(t, exactlyOnce)
			}
			relay.Ready(t, time.Minute)
			whole(t, env, work, relay)
		})
	}
}
