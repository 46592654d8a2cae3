package integration

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// upgrade and safeDowngrade are kinds of updates that lose nothing.
const (
	upgrade       = 1
	safeDowngrade = 2
)

// TestWeakTransactions has brokers that do not tie each record to its transaction, as those before
// Kafka 4.0. The relay says that this is effectively once, and ten kills under load neither lose
// nor repeat anything.
func TestWeakTransactions(t *testing.T) {
	t.Parallel()
	for _, version := range []int16{0, 1} {
		t.Run([]string{"transaction.version 0", "transaction.version 1"}[version], func(t *testing.T) {
			if version == 1 {
				long(t) // it differs in what the coordinator keeps on disk
			}
			env := Setup(t, Needs{Kafka: Own})
			env.Init(t)
			transactionVersion(t, env, version, safeDowngrade)
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

// TestTransactionVersionChanged changes what the brokers' transactions promise under load, to and
// fro: nothing is lost or repeated. The relay asks, and says so, when the next session begins.
func TestTransactionVersionChanged(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Kafka: Own})
	env.Init(t)
	transactionVersion(t, env, 1, safeDowngrade)
	relay := env.Run(t, exactlyOnce)
	relay.Ready(t, time.Minute)
	relay.WaitLog(t, 10*time.Second, "effectively once")
	work := env.Workload(t, WorkloadOptions{Rate: 1000, Writers: 3})
	work.WaitCommitted(t, 1000)
	for _, change := range []struct {
		version  int16
		kind     int8
		delivery string
	}{{2, upgrade, "exactly-once"}, {1, safeDowngrade, "effectively-once"}, {2, upgrade, "exactly-once"}} {
		transactionVersion(t, env, change.version, change.kind)
		work.WaitCommitted(t, work.Committed()+2000)
		t.Logf("transaction.version %d, same session: %v", change.version, relay.Status(t)["delivery"])
		before := reconnects(t, relay)
		env.Exec(t, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", env.Slot)
		Eventually(t, 20*time.Second, "another session", func() bool { return reconnects(t, relay) > before && relay.IsReady() })
		if got := relay.Status(t)["delivery"]; got != change.delivery {
			t.Errorf("transaction.version %d, another session: %v, want %s", change.version, got, change.delivery)
		}
		work.WaitCommitted(t, work.Committed()+1000)
	}
	if said := strings.Count(relay.Log(), "exactly once, for consumers"); said != 2 {
		t.Errorf("the log says %d times that it is exactly once, want 2", said)
	}
	whole(t, env, work, relay)
}

func transactionVersion(t *testing.T, env *Env, version int16, kind int8) {
	t.Helper()
	updated, err := kadm.NewClient(env.Client(t)).UpdateFeatures(t.Context(), false,
		kadm.FeatureUpdate{Feature: "transaction.version", MaxVersionLevel: version, UpgradeType: kind})
	if err != nil || updated.Error() != nil {
		t.Fatal(err, updated.Error())
	}
}
