package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// ensureTopic creates the state topic if it is missing and inspects its shape if it is there.
func (s *Store) ensureTopic(ctx context.Context) (kadm.TopicID, error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	admin := kadm.NewClient(s.client)
	topics, err := admin.ListTopics(ctx, s.topic)
	if err != nil {
		return kadm.TopicID{}, fmt.Errorf("look for state topic %q: %w", s.topic, err)
	}
	detail := topics[s.topic]
	switch {
	case errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
		return s.createTopic(ctx, admin)
	case detail.Err != nil:
		return kadm.TopicID{}, fmt.Errorf("look for state topic %q: %w", s.topic, detail.Err)
	case len(detail.Partitions) != 1:
		return kadm.TopicID{}, &TopicError{Topic: s.topic, Partitions: len(detail.Partitions)}
	default:
		s.checkCleanup(ctx, admin)
		return detail.ID, nil
	}
}

// largeSegment is a segment that is compacted too rarely: the active one never is, and twenty positions a second fill it slowly.
const largeSegment = 64 << 20

// checkCleanup warns, once, of a topic that keeps too much, and of one that forgets its records with time. A position that is gone is no loss: the slot's is
// adopted, and events are repeated; but a slot that was moved is then not recognised.
func (s *Store) checkCleanup(ctx context.Context, admin *kadm.Client) {
	if s.asked {
		return
	}
	configs, err := admin.DescribeTopicConfigs(ctx, s.topic)
	if err != nil || len(configs) != 1 || configs[0].Err != nil {
		s.log.Debug().AnErr("cause", err).Msg("cleanup.policy of the state topic cannot be read (right DescribeConfigs)")
		return
	}
	s.asked = true
	for _, c := range configs[0].Configs {
		value := c.MaybeValue()
		if c.Key == "cleanup.policy" && value != "compact" {
			s.log.Warn().Str("topic", s.topic).Str("cleanup.policy", value).
				Msg("the state topic forgets old positions: set its cleanup.policy to compact alone")
		}
		if bytes, err := strconv.ParseInt(value, 10, 64); c.Key == "segment.bytes" && err == nil && bytes > largeSegment {
			s.log.Warn().Str("topic", s.topic).Int64("segment.bytes", bytes).
				Msg("the state topic keeps very many old positions, and each start reads them: set its segment.bytes to 1048576, or as low as the cluster allows")
		}
	}
}

// awaitTopic waits until the brokers agree that the new topic is there: for a moment they deny it.
func (s *Store) awaitTopic(ctx context.Context, admin *kadm.Client) error {
	for {
		ends, err := admin.ListEndOffsets(ctx, s.topic)
		if err == nil {
			err = ends.Error()
		}
		if err == nil {
			return nil
		}
		if !kerr.IsRetriable(err) && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("wait for state topic %q: %w", s.topic, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for state topic %q: %w", s.topic, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TopicError says that the state topic cannot hold an ordered position.
type TopicError struct {
	Topic      string
	Partitions int
}

func (e *TopicError) Error() string {
	return fmt.Sprintf("state topic %q has %d partitions, it needs exactly one", e.Topic, e.Partitions)
}
