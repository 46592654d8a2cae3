package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// CreateError says that the brokers refuse to create a topic, and why, in their own words. The code
// alone may be ambiguous: INVALID_TOPIC_EXCEPTION is a name with a blank in it, or one that
// collides with the name of another topic.
type CreateError struct {
	Topic string
	Says  string // empty = the brokers gave no reason
	Err   error  // a [*kerr.Error]
}

func (e *CreateError) Error() string {
	var code *kerr.Error
	if e.Says == "" || !errors.As(e.Err, &code) {
		return fmt.Sprintf("create topic %q: %v", e.Topic, e.Err)
	}
	return fmt.Sprintf("create topic %q: the brokers say %s: %s", e.Topic, code.Message, e.Says)
}

func (e *CreateError) Unwrap() error { return e.Err }

// shape is what we ask of the state topic.
type shape struct {
	replicas int16 // -1 = the brokers' default
	config   map[string]string
}

// A state topic must be compacted. The other settings keep it small: with small segments,
// compaction keeps up with twenty records a second.
var (
	compacted = map[string]string{"cleanup.policy": "compact"}
	small     = map[string]string{
		"cleanup.policy": "compact", "segment.bytes": "1048576", "segment.ms": "600000",
		"min.cleanable.dirty.ratio": "0.1",
	}
)

// plainer returns a shape that the brokers may accept after they refused this one, if there is any.
// Managed clusters often let nobody set segments; some have no default of replicas, or insist on
// three.
func (v shape) plainer(refused error) (shape, bool) {
	policy := errors.Is(refused, kerr.PolicyViolation)
	settings := policy || errors.Is(refused, kerr.InvalidConfig) || errors.Is(refused, kerr.InvalidRequest)
	replicas := policy || errors.Is(refused, kerr.InvalidReplicationFactor)
	switch {
	case settings && len(v.config) > len(compacted):
		return shape{v.replicas, compacted}, true
	case replicas && v.replicas < 0:
		return shape{3, v.config}, true
	default:
		return v, false
	}
}

// createTopic creates the topic in the best shape that the brokers accept.
func (s *Store) createTopic(ctx context.Context, admin *kadm.Client) (kadm.TopicID, error) {
	v := shape{-1, small}
	var first, last error
	for {
		id, err := s.create(ctx, admin, v)
		switch {
		case err == nil && first == nil:
			s.log.Info().Str("topic", s.topic).Msg("state topic created: one partition, compacted")
			return id, s.awaitTopic(ctx, admin)
		case err == nil:
			s.warnOfShape(v, first)
			return id, s.awaitTopic(ctx, admin)
		case first == nil:
			first, last = err, err
		case v.replicas < 0 || !errors.Is(err, kerr.InvalidReplicationFactor):
			last = err // otherwise there are too few brokers for three replicas, only a guess
		}
		var more bool
		if v, more = v.plainer(err); !more {
			return kadm.TopicID{}, fmt.Errorf("state topic (one partition, cleanup.policy=compact): %w", last)
		}
	}
}

func (s *Store) create(ctx context.Context, admin *kadm.Client, v shape) (kadm.TopicID, error) {
	config := map[string]*string{}
	for name, value := range v.config {
		config[name] = kadm.StringPtr(value)
	}
	responses, err := admin.CreateTopics(ctx, 1, v.replicas, config, s.topic)
	if err != nil {
		return kadm.TopicID{}, fmt.Errorf("create state topic %q: %w", s.topic, err)
	}
	created, ok := responses[s.topic]
	switch {
	case !ok:
		return kadm.TopicID{}, fmt.Errorf("create state topic %q: the brokers answered without the topic", s.topic)
	case created.Err != nil && !errors.Is(created.Err, kerr.TopicAlreadyExists):
		return kadm.TopicID{}, &CreateError{Topic: s.topic, Says: created.ErrMessage, Err: created.Err}
	}
	return created.ID, nil
}

// warnOfShape logs how the topic differs from the best shape. Positions in it are just as safe.
func (s *Store) warnOfShape(v shape, refused error) {
	var settings []string
	for _, name := range slices.Sorted(maps.Keys(v.config)) {
		settings = append(settings, name+"="+v.config[name])
	}
	event := s.log.Warn().Str("topic", s.topic).Strs("settings", settings).
		Int16("replication_factor", v.replicas).AnErr("refused", refused)
	if len(v.config) < len(small) {
		event.Msg("state topic created with fewer settings, because the brokers refuse some: nothing is lost, " +
			"but each start may read very many old positions; " +
			"set its segment.bytes and segment.ms as low as the cluster allows")
		return
	}
	event.Msg("state topic created with three replicas, because the brokers refuse their default")
}
