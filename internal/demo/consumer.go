package demo

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/internal/config"
)

// consumer prints the records of this run and tells the ledger of them.
type consumer struct {
	client *kgo.Client
	source string
	ledger *ledger
	screen *screen

	mu   sync.Mutex
	next map[partition]int64 // offsets
}

// newConsumer reads from where the topics ended before the first event: ones that were there may
// hold old records.
func newConsumer(cfg *config.Config, ends kadm.ListedOffsets, source string, l *ledger, s *screen) (*consumer, error) {
	c := &consumer{source: source, ledger: l, screen: s, next: map[partition]int64{}}
	ends.Each(func(o kadm.ListedOffset) { c.next[partition{o.Topic, o.Partition}] = o.Offset })
	client, err := newClient(cfg, kgo.ConsumePartitions(ends.KOffsets()))
	c.client = client
	return c, err
}

func (c *consumer) close() {
	if c.client != nil {
		c.client.Close()
	}
}

// run reads until ctx ends.
func (c *consumer) run(ctx context.Context) error {
	for {
		fetches := c.client.PollFetches(ctx)
		now := time.Now()
		if ctx.Err() != nil {
			return nil
		}
		for _, e := range fetches.Errors() {
			return fmt.Errorf("consume topic %s: %w", e.Topic, e.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) { c.show(r, now) })
		c.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) { c.next[partition{r.Topic, r.Partition}] = r.Offset + 1 })
		c.mu.Unlock()
	}
}

func (c *consumer) show(r *kgo.Record, now time.Time) {
	headers := map[string]string{}
	for _, h := range r.Headers {
		headers[h.Key] = string(h.Value)
	}
	if headers["source"] != c.source {
		return // not of this run: the topic was there before
	}
	took, known := c.ledger.arrive(headers["id"], r.Topic, r.Partition, headers["pos"], now)
	c.screen.record(arrival{
		at: now, topic: r.Topic, partition: r.Partition, key: string(r.Key), kind: headers["type"], pos: headers["pos"],
		took: took, known: known,
	})
}

// readToEnd waits until everything that the topics hold has been read: a repeat or an invention
// would be among the last.
func (c *consumer) readToEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ends, err := kadm.NewClient(c.client).ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("read the ends of the demo's topics: %w", err)
	}
	read := await(ctx, 5*time.Second, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for at, next := range c.next {
			if end, ok := ends.Lookup(at.topic, at.number); ok && next < end.Offset {
				return false
			}
		}
		return true
	})
	if !read {
		return fmt.Errorf("read the demo's topics to their ends: %w", context.DeadlineExceeded)
	}
	return nil
}
