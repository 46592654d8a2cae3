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

// ensureTopic creates the state topic if it is missing, and checks its shape if it exists.
func (s *Store) ensureTopic(ctx context.Context) (kadm.TopicID, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	admin := kadm.NewClient(s.client)
	detail, exists, err := s.describeTopic(ctx, admin)
	switch {
	case err != nil:
		return kadm.TopicID{}, err
	case !exists:
		return s.createTopic(ctx, admin)
	}
	s.checkCleanup(ctx, admin)
	return detail.ID, nil
}

// describeTopic returns the state topic. A topic that cannot hold an ordered position is an error.
func (s *Store) describeTopic(
	ctx context.Context, admin *kadm.Client,
) (detail kadm.TopicDetail, exists bool, err error) {
	topics, err := admin.ListTopics(ctx, s.topic)
	if err != nil {
		return detail, false, fmt.Errorf("look for state topic %q: %w", s.topic, err)
	}
	detail = topics[s.topic]
	switch {
	case errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
		return detail, false, nil
	case detail.Err != nil:
		return detail, false, fmt.Errorf("look for state topic %q: %w", s.topic, detail.Err)
	case len(detail.Partitions) != 1:
		return detail, false, &TopicError{Topic: s.topic, Partitions: len(detail.Partitions)}
	}
	return detail, true, nil
}

// largeSegment is the size of a segment that is compacted too rarely: the active one never is, and
// twenty positions a second fill it slowly.
const largeSegment = 64 << 20

// checkCleanup warns, once, of a topic that keeps too much, and of one that deletes its records
// after a while. If a position is gone, nothing is lost: a start adopts the slot's position and
// repeats events. But it does not notice if the slot was moved.
func (s *Store) checkCleanup(ctx context.Context, admin *kadm.Client) {
	if s.cleanupChecked {
		return
	}
	configs, err := admin.DescribeTopicConfigs(ctx, s.topic)
	if err != nil || len(configs) != 1 || configs[0].Err != nil {
		s.log.Debug().AnErr("cause", err).Msg("cannot read cleanup.policy of the state topic (right DescribeConfigs)")
		return
	}
	s.cleanupChecked = true
	for _, c := range configs[0].Configs {
		value := c.MaybeValue()
		bytes, err := strconv.ParseInt(value, 10, 64)
		switch {
		case c.Key == "cleanup.policy" && value != "compact":
			s.log.Warn().Str("topic", s.topic).Str("cleanup.policy", value).
				Msg("the state topic forgets old positions: set its cleanup.policy to compact only")
		case c.Key == "segment.bytes" && err == nil && bytes > largeSegment:
			s.log.Warn().Str("topic", s.topic).Int64("segment.bytes", bytes).
				Msg("the state topic keeps very many old positions, and each start reads them: " +
					"set its segment.bytes to 1048576, or as low as the cluster allows")
		}
	}
}

// awaitTopic waits until all brokers know the new topic: for a moment some deny that it exists.
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
