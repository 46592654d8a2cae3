package integration

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// consumer reads all topics whose names begin with a prefix, from their first offsets, as a read_committed consumer
// does. It may be drained several times; topics that appear in between are picked up.
type consumer struct {
	client     *kgo.Client
	admin      *kadm.Client
	prefix     string
	partitions map[string]int32           // by topic
	position   map[string]map[int32]int64 // next offset to read
}

func newConsumer(brokers []string, prefix string, opts ...kgo.Opt) (*consumer, error) {
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
	return &consumer{
		client: client, admin: kadm.NewClient(client), prefix: prefix,
		partitions: map[string]int32{}, position: map[string]map[int32]int64{},
	}, nil
}

func (c *consumer) close() { c.client.Close() }

// drain hands every record up to the present end of each partition to add, and returns how many there were.
func (c *consumer) drain(ctx context.Context, add func(r *kgo.Record, partitions int32)) (int, error) {
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
func (c *consumer) discover(ctx context.Context) (kadm.ListedOffsets, error) {
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

func (c *consumer) behind(ends kadm.ListedOffsets) bool {
	behind := false
	ends.Each(func(o kadm.ListedOffset) {
		behind = behind || c.position[o.Topic][o.Partition] < o.Offset
	})
	return behind
}
