package checker

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration/wait"
)

// patience is how long Follow waits for another record while some are missing.
const patience = 20 * time.Second

// Consumer reads all topics whose names begin with a prefix, from their first offsets, as a
// read_committed consumer does. It may be drained several times; topics that appear in between are
// picked up.
type Consumer struct {
	client     *kgo.Client
	admin      *kadm.Client
	prefix     string
	partitions map[string]int32           // by topic
	position   map[string]map[int32]int64 // next offset to read
}

// NewConsumer connects to brokers; the caller closes it.
func NewConsumer(brokers []string, prefix string, opts ...kgo.Opt) (*Consumer, error) {
	client, err := kgo.NewClient(append(opts[:len(opts):len(opts)],
		kgo.SeedBrokers(brokers...),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Markers of transactions take an offset. They are needed to know that the end was reached.
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(100*time.Millisecond),
		kgo.MetadataMinAge(50*time.Millisecond),
	)...)
	if err != nil {
		return nil, fmt.Errorf("create consumer: %w", err)
	}
	return &Consumer{
		client: client, admin: kadm.NewClient(client), prefix: prefix,
		partitions: map[string]int32{}, position: map[string]map[int32]int64{},
	}, nil
}

// Close leaves the brokers.
func (c *Consumer) Close() { c.client.Close() }

// Drain hands every record up to the present end of each partition to add, and returns how many
// there were.
func (c *Consumer) Drain(ctx context.Context, add func(r *kgo.Record, partitions int32)) (int, error) {
	ends, err := c.discover(ctx)
	if err != nil {
		return 0, err
	}
	count := 0
	for c.behind(ends) {
		fetches := c.client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return count, fmt.Errorf("consume: %w", err)
		}
		fetches.EachError(func(_ string, _ int32, e error) { err = e })
		if err != nil {
			return count, fmt.Errorf("consume: %w", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			c.position[r.Topic][r.Partition] = r.Offset + 1
			if !r.Attrs.IsControl() {
				count++
				add(r, c.partitions[r.Topic])
			}
		})
	}
	return count, nil
}

// discover starts to consume new topics and returns the last stable offsets.
func (c *Consumer) discover(ctx context.Context) (kadm.ListedOffsets, error) {
	topics, err := c.admin.ListTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	var names []string
	for _, topic := range topics.Sorted() {
		if !strings.HasPrefix(topic.Topic, c.prefix) || topic.Err != nil {
			continue
		}
		names = append(names, topic.Topic)
		if _, known := c.partitions[topic.Topic]; known {
			continue
		}
		c.partitions[topic.Topic] = int32(len(topic.Partitions))
		c.position[topic.Topic] = map[int32]int64{}
		offsets := map[int32]kgo.Offset{}
		for partition := range topic.Partitions {
			offsets[partition] = kgo.NewOffset().AtStart()
		}
		c.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic.Topic: offsets})
	}
	if len(names) == 0 {
		return nil, nil // an empty list would ask for all topics
	}
	ends, err := c.admin.ListCommittedOffsets(ctx, names...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list end offsets: %w", err)
	}
	return ends, nil
}

func (c *Consumer) behind(ends kadm.ListedOffsets) bool {
	behind := false
	ends.Each(func(o kadm.ListedOffset) {
		behind = behind || c.position[o.Topic][o.Partition] < o.Offset
	})
	return behind
}

// Follow hands all records to add. It returns once there are no more and all is there, or none came
// for a while.
func (c *Consumer) Follow(t testing.TB, add func(r *kgo.Record, partitions int32), complete func() bool) {
	t.Helper()
	for last := wait.In(patience); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		count, err := c.Drain(ctx, add)
		cancel()
		if err != nil && last.Over() {
			t.Fatal(err)
		}
		if count > 0 {
			last = wait.In(patience)
			continue // until nothing is left
		}
		if err == nil && (complete() || last.Over()) {
			return
		}
		time.Sleep(50 * time.Millisecond) // polls the brokers, which tell nobody of new records
	}
}
