package sink

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProduceInOrderPerKey(t *testing.T) {
	t.Parallel()
	f := setup(t, nil, kfake.DefaultNumPartitions(3))
	want := map[string][]string{}
	for i := range 3000 {
		key := fmt.Sprint("k", i%17)
		want[key] = append(want[key], fmt.Sprint(i))
		f.mustProduce("orders", key, fmt.Sprint(i), 100)
	}
	f.mustFlush()
	got, partition := map[string][]string{}, map[string]int32{}
	for _, r := range f.records("orders") {
		key := string(r.Key)
		if p, ok := partition[key]; ok && p != r.Partition {
			t.Fatalf("key %s is in partitions %d and %d", key, p, r.Partition)
		}
		partition[key] = r.Partition
		got[key] = append(got[key], string(r.Headers[0].Value))
	}
	for key := range want {
		if !slices.Equal(got[key], want[key]) {
			t.Fatalf("key %s: got %d events, not the %d produced in their order", key, len(got[key]), len(want[key]))
		}
	}
	for i, m := range f.marks {
		if n := m.done.Load(); n != 1 {
			t.Fatalf("mark %d was told %d times", i, n)
		}
	}
	if st := f.sink.Stats(); st.Events != 0 || st.Bytes != 0 || st.Published["orders"] != 3000 || !st.Up {
		t.Fatalf("stats are %+v", st)
	}
}

// TestTooLargeForItsTopic: nothing passes an event that is too large, be it the first of its topic.
func TestTooLargeForItsTopic(t *testing.T) {
	t.Parallel()
	for _, before := range []int{0, 100} {
		t.Run(fmt.Sprint(before, " before it"), func(t *testing.T) {
			t.Parallel()
			f := setup(t, nil, kfake.SeedTopics(1, "orders"))
			f.setLimit("orders", "20000")
			for i := range before { // small ones fill batches, which must respect the topic's limit
				f.mustProduce("orders", "k", fmt.Sprint(i), 1000)
			}
			err := f.produce("orders", "k", "large", 30_000)
			if err == nil {
				err = f.produce("orders", "k", "after", 10)
			}
			if !errors.Is(err, kerr.MessageTooLarge) {
				t.Fatalf("Produce = %v", err)
			}
			var refused *EventError
			if err := f.flush(); !errors.As(err, &refused) ||
				refused.EventID != "large" || int(refused.Commit) != before+1 || refused.Reason != "too_large" {
				t.Fatalf("Flush = %+v", err)
			}
			if got := f.ids("orders")[0]; len(got) != before {
				t.Fatalf("published are %v, want the %d before it", got, before)
			}
		})
	}
}

// setLimit sets max.message.bytes of a topic.
func (f *fixture) setLimit(topic, bytes string) {
	f.t.Helper()
	config := []kadm.AlterConfig{{Name: "max.message.bytes", Value: &bytes}}
	if _, err := kadm.NewClient(f.client()).AlterTopicConfigs(f.t.Context(), config, topic); err != nil {
		f.t.Fatal(err)
	}
}

// TestLimitOfATopicAndOfARequest: a batch must fit into a request, whatever its topic allows.
func TestLimitOfATopicAndOfARequest(t *testing.T) {
	t.Parallel()
	f := setup(t, func(c *Config) { c.MaxRequest = 2 << 20 }, kfake.SeedTopics(1, "orders"))
	f.setLimit("orders", "3000000")
	f.mustProduce("orders", "k", "1", 1)
	if limit := f.sink.topics.batchLimit("orders"); limit < 1<<20 || limit >= 2<<20 {
		t.Errorf("a batch may have %d bytes", limit)
	}
}

func TestEventsThatBreakTheContract(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]*decoder.Event{
		"illegal topic": {ID: []byte("e"), AggregateType: []byte("no topic")},
		"state topic":   {ID: []byte("e"), AggregateType: []byte("state")},
		"bad headers":   {ID: []byte("e"), AggregateType: []byte("orders"), Headers: []byte(`[1]`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, nil)
			var refused *EventError
			err := f.sink.Produce(e, Transaction{Commit: 0x100000002}, &mark{}, checkpoint.Position{})
			if !errors.As(err, &refused) || refused.EventID != "e" || !strings.Contains(err.Error(), "1/2") {
				t.Fatalf("Produce = %v", err)
			}
			if err := f.produce("orders", "k", "next", 1); err == nil {
				t.Fatal("the next event was taken")
			}
		})
	}
}
