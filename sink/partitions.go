package sink

import "github.com/twmb/franz-go/pkg/kgo"

// partitioner puts keys where Java clients do: murmur2 of the key, over all partitions. Partitions that are added to a topic
// count once the sink says so, and not when the client learns of them: an event must not be readable, or confirmed, in
// another partition before its predecessors are in theirs.
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

// spread lets events of a topic go to partitions that were added to it, once everything before them is published. The
// others wait as well: they may be what is published behind the position of the next start.
func (s *Sink) spread(t *topic) error {
	if err := s.how.flush(s.ctx); err != nil {
		return err
	}
	before, now := t.partitions.Load(), t.offered.Load()
	t.partitions.Store(now)
	s.log.Info().Str("topic", t.name).Int32("partitions_before", before).Int32("partitions", now).
		Msg("partitions were added to the topic: what was in flight is confirmed, keys may move to other partitions from here on")
	return nil
}
