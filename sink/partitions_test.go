package sink

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// movingKey is a key that moves when a topic of one partition gets a second one.
func movingKey() string {
	java := kgo.StickyKeyPartitioner(nil).ForTopic("orders")
	for i := 0; ; i++ {
		if key := fmt.Sprint("k", i); java.Partition(&kgo.Record{Key: []byte(key)}, 2) == 1 {
			return key
		}
	}
}

// TestPartitionsAdded: a key moves to another partition. Nothing of it gets there before what is in
// flight is confirmed.
func TestPartitionsAdded(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	f := setup(t, func(c *Config) { c.Log = zerolog.New(&log).Level(zerolog.InfoLevel) })
	key := movingKey()
	f.mustProduce("orders", key, "0", 10)
	f.mustFlush()
	var stuck atomic.Bool
	stuck.Store(true)
	f.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if !stuck.Load() || r.Topics[0].Partitions[0].Partition != 0 {
			return nil, nil, false
		}
		return waiting(r), nil, true
	})
	f.addPartitions("orders", 2)
	n := f.produceUntil(key, 1, f.sink.Held)
	time.Sleep(200 * time.Millisecond) // what is not held back would be there now
	if got := f.ids("orders")[1]; len(got) > 0 {
		t.Fatalf("events %v passed others of their key that are in flight", got)
	}
	stuck.Store(false)
	<-f.room
	f.ascending(key, n)
	if said := strings.Count(log.String(), "partitions were added"); said != 1 {
		t.Errorf("the log says it %d times:\n%s", said, log.String())
	}
}

// TestPartitionsAddedExactlyOnce: the same across transactions.
func TestPartitionsAddedExactlyOnce(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	f := exactly(t, func(c *Config) { c.Log = zerolog.New(&log).Level(zerolog.InfoLevel) })
	key := movingKey()
	f.mustProduce("orders", key, "0", 10)
	f.mustFlush()
	f.addPartitions("orders", 2)
	n := f.produceUntil(key, 1, func() bool { return strings.Contains(log.String(), "partitions were added") })
	f.ascending(key, n)
}

func (f *fixture) addPartitions(topic string, count int) {
	f.t.Helper()
	responses, err := kadm.NewClient(f.sink.client.(*kgo.Client)).UpdatePartitions(f.t.Context(), count, topic)
	if err != nil || responses.Error() != nil {
		f.t.Fatal(err, responses.Error())
	}
	f.sink.client.(*kgo.Client).ForceMetadataRefresh() // else it asks every five minutes
}

// produceUntil produces events from the given number on until the condition holds. It returns the
// next number.
func (f *fixture) produceUntil(key string, n int, condition func() bool) int {
	f.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); n++ {
		if time.Now().After(deadline) {
			f.t.Fatal("the sink does not notice that partitions were added")
		}
		if err := f.send("orders", key, fmt.Sprint(n), 0); err != nil {
			f.t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // so that there are not too many of them
	}
	return n
}

// ascending produces some more events, and checks that the first of all are in partition 0 and the
// others in 1, in order.
func (f *fixture) ascending(key string, n int) {
	f.t.Helper()
	count := n + 50
	for ; n < count; n++ {
		f.mustProduce("orders", key, fmt.Sprint(n), 10)
	}
	f.mustFlush()
	parts := f.ids("orders")
	if len(parts[0]) < 2 || len(parts[1]) < 50 {
		f.t.Fatalf("%d events in the first partition, %d in the new one", len(parts[0]), len(parts[1]))
	}
	got := slices.Concat(parts[0], parts[1])
	for i, id := range got {
		if id != fmt.Sprint(i) {
			f.t.Fatalf("event %d is %s", i, id)
		}
	}
	if len(got) != count {
		f.t.Fatalf("%d events of %d", len(got), count)
	}
}
