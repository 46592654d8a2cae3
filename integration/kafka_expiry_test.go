package integration

import (
	"maps"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// forgetful are settings of a broker that forgets producers and transactional ids within seconds.
var forgetful = map[string]string{
	"producer.id.expiration.ms":                                   "1000",
	"producer.id.expiration.check.interval.ms":                    "200",
	"transactional.id.expiration.ms":                              "1000",
	"transaction.remove.expired.transaction.cleanup.interval.ms":  "200",
	"transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}

// TestProducerForgotten: an idle relay is forgotten by the brokers, its producer id and its
// transactional id. With the next events it goes on by itself; nothing is lost or repeated.
func TestProducerForgotten(t *testing.T) {
	t.Parallel()
	for _, delivery := range deliveries {
		t.Run(delivery, func(t *testing.T) {
			env := Setup(t, Needs{Kafka: Own, KafkaConfig: maps.Clone(forgetful)})
			env.Init(t)
			env.CreateTopic(t, env.Prefix+"order", eventPartitions, nil)
			relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
			relay.Ready(t, 30*time.Second)
			admin := kadm.NewClient(env.Client(t))
			for i := range 3 {
				if i > 0 {
					forgotten(t, admin, env.Prefix+"order")
				}
				work := env.Workload(t, WorkloadOptions{Events: 500, Types: []string{"order"}, NoLarge: true})
				work.Wait(t)
				env.Check(t, work).Assert(t, 0)
				if i == 2 {
					whole(t, env, work, relay)
				}
			}
		})
	}
}

// forgotten waits until the brokers know of no producer of a topic, and of no transactional id.
func forgotten(t testing.TB, admin *kadm.Client, topic string) {
	t.Helper()
	Eventually(t, time.Minute, "the brokers to forget the producer", func() bool {
		producers, err := admin.DescribeProducers(t.Context(), kadm.TopicsSet{topic: {0: {}, 1: {}, 2: {}, 3: {}, 4: {}, 5: {}}})
		if err != nil {
			return false
		}
		known := 0
		producers.EachProducer(func(kadm.DescribedProducer) { known++ })
		transactions, err := admin.ListTransactions(t.Context(), nil, nil)
		return err == nil && known == 0 && len(transactions) == 0
	})
}
