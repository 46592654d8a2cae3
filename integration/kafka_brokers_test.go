package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// threeBrokers has a relay publish to three brokers under load, lets a test make trouble, and
// checks that everything arrives: no trouble of brokers is a reason to repeat, to end or to take
// more memory. Three brokers take their time, so only one delivery is tried without
// WALPOST_TEST_LONG, or none.
func threeBrokers(t *testing.T, quick string, trouble func(t *testing.T, env *Env, relay *Relay, work *Workload)) {
	for _, delivery := range deliveries {
		t.Run(delivery, func(t *testing.T) {
			if delivery != quick {
				long(t)
			}
			env := Setup(t, Needs{Kafka: OwnThree})
			env.Init(t)
			awaitInSync(t, env)
			env.CreateTopic(t, env.Prefix+"order", eventPartitions, nil)
			relay := env.Run(t, "WALPOST_DELIVERY="+delivery, smallBound)
			work := env.Workload(t, WorkloadOptions{Rate: 1000, Writers: 3})
			relay.Ready(t, 60*time.Second)
			work.WaitCommitted(t, 1000)
			trouble(t, env, relay, work)
			work.WaitCommitted(t, work.Committed()+1000)
			relay.Ready(t, 60*time.Second)
			if peak := residentPeakMiB(t, relay.PID()); peak > 150 {
				t.Errorf("the relay took %d MiB", peak)
			}
			whole(t, env, work, relay)
		})
	}
}

// leaderOf returns which broker leads the first partition of a topic.
func leaderOf(t testing.TB, admin *kadm.Client, topic string) int {
	t.Helper()
	leader := int32(-1)
	Eventually(t, 30*time.Second, "a leader", func() bool {
		topics, err := admin.ListTopics(t.Context(), topic)
		if err != nil {
			return false
		}
		leader = topics[topic].Partitions[0].Leader
		return leader > 0
	})
	return int(leader) - 1
}

// TestRollingRestart stops and starts the brokers in order, one after the other, as an upgrade
// does.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	threeBrokers(t, "", func(t *testing.T, env *Env, _ *Relay, work *Workload) {
		for i := range 3 {
			if err := env.Kafka.Stop(t.Context(), i); err != nil {
				t.Fatal(err)
			}
			work.WaitCommitted(t, work.Committed()+1000)
			startBroker(t, env, i)
		}
	})
}

// TestLeaderKilled kills the leader of a partition that is being written, and then its successor.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	threeBrokers(t, "at-least-once", func(t *testing.T, env *Env, _ *Relay, work *Workload) {
		admin := kadm.NewClient(env.Client(t, kgo.MetadataMinAge(100*time.Millisecond)))
		topic := env.Prefix + "order"
		for range 2 {
			leader := leaderOf(t, admin, topic)
			env.Kafka.Kill(leader)
			Eventually(t, time.Minute, "another leader", func() bool { return leaderOf(t, admin, topic) != leader })
			work.WaitCommitted(t, work.Committed()+1000)
			startBroker(t, env, leader)
		}
	})
}

// TestBelowMinInSyncReplicas takes away one broker where all three must have an event, and then two
// of three, which takes the quorum of the controllers with them.
func TestBelowMinInSyncReplicas(t *testing.T) {
	t.Parallel()
	threeBrokers(t, "", func(t *testing.T, env *Env, relay *Relay, work *Workload) {
		env.SetTopicConfig(t, env.Prefix+"order", "min.insync.replicas", "3")
		env.Kafka.Kill(0)
		Eventually(t, time.Minute, "the brokers' answer as the reason", func() bool {
			_, reasons := relay.Get("/readyz")
			return strings.Contains(reasons, `waiting for topic "`+env.Prefix+`order", partition `) &&
				strings.Contains(reasons, ": NOT_ENOUGH_REPLICAS")
		})
		eventsWait(t, env, relay, work)
		startBroker(t, env, 0)
		work.WaitCommitted(t, work.Committed()+1000)
		relay.Ready(t, 60*time.Second)

		env.SetTopicConfig(t, env.Prefix+"order", "min.insync.replicas", "2")
		env.Kafka.Kill(1)
		env.Kafka.Kill(2)
		eventsWait(t, env, relay, work)
		for _, i := range []int{1, 2} {
			if err := env.Kafka.Start(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		awaitInSync(t, env)
	})
}

// eventsWait returns once more events wait than the relay may have in flight, and it has said why.
func eventsWait(t testing.TB, env *Env, relay *Relay, work *Workload) {
	t.Helper()
	Eventually(t, time.Minute, "the relay to be not ready, and to say why", func() bool {
		code, reasons := relay.Get("/readyz")
		for _, because := range []string{
			"in flight", "waiting for topic", "Kafka", env.StateTopic, "transactional id",
		} {
			if code == 503 && strings.Contains(reasons, because) {
				t.Logf("/readyz says %q", strings.TrimSpace(reasons))
				return true
			}
		}
		return false
	})
	before := published(t, env, relay, "order")
	work.WaitCommitted(t, work.Committed()+10_000) // some 12 MiB
	if n := published(t, env, relay, "order") - before; n > 500 {
		t.Errorf("%v events were published though too few replicas are in sync", n)
	}
	if !relay.Running() || !relay.IsLive() {
		t.Fatal("the relay is gone")
	}
	if in := relay.Metrics(t)["walpost_in_flight_bytes"]; in > 9<<20 {
		t.Errorf("%v bytes in flight, the bound is 8 MiB", in)
	}
}
