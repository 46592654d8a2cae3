package integration

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration/wait"
)

// TestHugeEvent publishes a bytea of 600 MB, whose text form no server could send, between two
// events of a usual size.
func TestHugeEvent(t *testing.T) {
	long(t)
	const size = 600_000_000
	env := Setup(t, Needs{
		Postgres: 18, Kafka: Own, KafkaHeap: "4g",
		KafkaConfig: map[string]string{"socket.request.max.bytes": "1073741824"},
	})
	env.Exec(t, "CREATE TABLE outbox (id int, aggregatetype text, aggregateid text, payload bytea)")
	env.Init(t)
	topic := env.Prefix + "blob"
	env.CreateTopic(t, topic, 1, map[string]string{"max.message.bytes": "700000000"})
	relay := env.Run(t, "WALPOST_KAFKA_MAX_REQUEST_BYTES=1GiB")
	relay.Ready(t, 30*time.Second)
	for i, n := range []int{10, size, 10} {
		env.Exec(t, fmt.Sprintf("INSERT INTO outbox VALUES (%d, 'blob', 'k', convert_to(repeat('x', %d), 'UTF8'))", i, n))
	}
	client := env.Client(t, kgo.ConsumeTopics(topic), kgo.FetchMaxPartitionBytes(800<<20),
		kgo.FetchMaxBytes(800<<20), kgo.BrokerMaxReadBytes(1<<30))
	var sizes []int
	for deadline := wait.In(5 * time.Minute); len(sizes) < 3; {
		if deadline.Over() || !relay.Running() {
			t.Fatalf("there are events of %v bytes", sizes)
		}
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		for _, r := range fetches.Records() {
			if bytes.Count(r.Value, []byte{'x'}) != len(r.Value) {
				t.Errorf("event %d has other bytes than were inserted", len(sizes))
			}
			sizes = append(sizes, len(r.Value))
		}
	}
	if fmt.Sprint(sizes) != fmt.Sprint([]int{10, size, 10}) {
		t.Errorf("events of %v bytes", sizes)
	}
	t.Logf("peak memory of the relay %d MiB", residentPeakMiB(t, relay.PID()))
	relay.Stop(t)
}
