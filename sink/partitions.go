package sink

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
)

// partitioner puts keys where Java clients do: murmur2 of the key, over all partitions. Partitions
// that are added to a topic count once the sink says so (spread), and not when the client learns of
// them: an event must not be readable, or confirmed, in its new partition before its predecessors
// are in the old.
type partitioner struct{ topics *topics }

// ForTopic implements kgo.Partitioner.
func (p partitioner) ForTopic(name string) kgo.TopicPartitioner {
	// Named, so that another default of the library cannot move keys to other partitions.
	java := kgo.StickyKeyPartitioner(nil).ForTopic(name)
	if t := p.topics.known(name); t != nil {
		return &topicPartitioner{java, t}
	}
	return java // the state topic
}

type topicPartitioner struct {
	kgo.TopicPartitioner
	topic *topic
}

// Partition implements kgo.TopicPartitioner. The client forgets no partition, so n never falls.
func (p *topicPartitioner) Partition(r *kgo.Record, n int) int {
	p.topic.offered.Store(int32(n)) // first: see grown
	p.topic.partitions.CompareAndSwap(0, int32(n))
	return p.TopicPartitioner.Partition(r, int(p.topic.partitions.Load()))
}

// grown reports whether partitions were added that no event went to yet.
func (t *topic) grown() bool {
	n := t.partitions.Load()
	return n != 0 && t.offered.Load() != n
}

// spread lets events of a topic go to partitions that were added to it, once everything before them
// is published. That includes other topics: a start repeats what is behind the oldest event in
// flight, and would send earlier events of a moved key to its new partition, behind later ones.
func (s *Sink) spread(ctx context.Context, t *topic) error {
	if err := s.how.flush(ctx); err != nil {
		return err
	}
	before, now := t.partitions.Load(), t.offered.Load()
	t.partitions.Store(now)
	s.log.Info().Str("topic", t.name).Int32("partitions_before", before).Int32("partitions", now).
		Msg("partitions were added to the topic: earlier events are confirmed, keys may move to other partitions now")
	return nil
}
