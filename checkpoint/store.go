package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Store keeps the position of one source in a compacted topic of one partition. One goroutine uses it at a time.
type Store struct {
	client *kgo.Client
	opts   []kgo.Opt
	topic  string
	source string
	log    zerolog.Logger
	asked  bool // how the topic is cleaned up was looked at
}

// NewStore returns a Store that talks to the brokers named in opts (seeds, TLS, SASL). It does not connect yet.
func NewStore(opts []kgo.Opt, topic, source string, log zerolog.Logger) (*Store, error) {
	producer := append(append([]kgo.Opt(nil), opts...),
		// An address that accepts and closes, as load balancers do without a backend, is an outage and no refusal.
		kgo.AlwaysRetryEOF(),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		// A state topic that vanished is an outage to wait for, not a position to forget.
		kgo.UnknownTopicRetries(-1),
	)
	client, err := kgo.NewClient(producer...)
	if err != nil {
		return nil, fmt.Errorf("create client for state topic %q: %w", topic, err)
	}
	return &Store{client: client, opts: opts, topic: topic, source: source, log: log}, nil
}

// Close drops the connections. A write that is under way may or may not reach the brokers.
func (s *Store) Close() { s.client.Close() }

// Save writes the state and returns once the brokers have confirmed it. After an error the outcome of the write is
// unknown; a later Save is never overtaken by it.
func (s *Store) Save(ctx context.Context, state State) error {
	value, err := state.Encode(s.source)
	if err != nil {
		return err
	}
	return s.write(ctx, value)
}

// Reset forgets every earlier state of the source and stores this one, even if it lies before them. Only an operator
// who has dealt with a gap may want that.
func (s *Store) Reset(ctx context.Context, state State) error {
	if err := s.ensureTopic(ctx); err != nil {
		return err
	}
	if err := s.write(ctx, nil); err != nil {
		return err
	}
	return s.Save(ctx, state)
}

// write does not use ProduceSync: a record that is on its way cannot be taken back, and ProduceSync would wait for its
// fate beyond the end of ctx. Nor does the record carry ctx: the client, when one of its records is given up, may give up
// those that follow it as well.
func (s *Store) write(ctx context.Context, value []byte) error {
	done := make(chan error, 1)
	record := &kgo.Record{Topic: s.topic, Key: []byte(s.source), Value: value}
	s.client.Produce(context.WithoutCancel(ctx), record, func(_ *kgo.Record, err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("write to state topic %q: %w", s.topic, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("write to state topic %q: %w", s.topic, ctx.Err())
	}
}

// Load reads the state topic to the end offset it has at the moment of the call and returns the state of the source;
// stored is false if there is none. It creates the topic if it is missing.
//
// Not the last record counts but the furthest one, the last of equals: a relay that was paused may write its old position after its
// successor wrote a newer one. A record without value (see Reset) forgets all before it.
func (s *Store) Load(ctx context.Context) (state State, stored bool, err error) {
	if err := s.ensureTopic(ctx); err != nil {
		return State{}, false, err
	}
	states, err := s.read(ctx, func(source string) bool { return source == s.source })
	state, stored = states[s.source]
	return state, stored, err
}

// Peek returns the states of the wanted sources as Load would. It creates nothing: without a topic there are none.
func (s *Store) Peek(ctx context.Context, wanted func(source string) bool) (map[string]State, error) {
	topics, err := kadm.NewClient(s.client).ListTopics(ctx, s.topic)
	if err != nil {
		return nil, fmt.Errorf("look for state topic %q: %w", s.topic, err)
	}
	detail := topics[s.topic]
	switch {
	case errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
		return nil, nil
	case detail.Err != nil:
		return nil, fmt.Errorf("look for state topic %q: %w", s.topic, detail.Err)
	case len(detail.Partitions) != 1:
		return nil, &TopicError{Topic: s.topic, Partitions: len(detail.Partitions)}
	}
	return s.read(ctx, wanted)
}

// read reads the topic from its start to its end. States are returned with no error alone.
func (s *Store) read(ctx context.Context, wanted func(source string) bool) (map[string]State, error) {
	start, end, err := s.offsets(ctx)
	if err != nil || start >= end {
		return nil, err
	}
	reader, err := kgo.NewClient(append(append([]kgo.Opt(nil), s.opts...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topic: {0: kgo.NewOffset().At(start)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// The end of the topic may be a transaction's marker: it has to be seen to know that the end is reached.
		kgo.KeepControlRecords(),
	)...)
	if err != nil {
		return nil, fmt.Errorf("create reader of state topic %q: %w", s.topic, err)
	}
	defer reader.Close()
	states := map[string]State{}
	for next := start; next < end; {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return nil, fmt.Errorf("read state topic %q: %w", s.topic, err)
		}
		if err := firstFetchError(fetches); err != nil {
			return nil, fmt.Errorf("read state topic %q: %w", s.topic, err)
		}
		for _, r := range fetches.Records() {
			next = r.Offset + 1
			source := string(r.Key)
			if r.Attrs.IsControl() || r.Offset >= end || !wanted(source) {
				continue
			}
			if r.Value == nil {
				delete(states, source)
				continue
			}
			read, err := DecodeState(r.Value)
			if err != nil {
				return nil, &RecordError{s.topic, r.Offset, err}
			}
			if state, stored := states[source]; !stored || !read.Before(state) {
				states[source] = read
			}
		}
	}
	return states, nil
}

func firstFetchError(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		return e.Err
	}
	return nil
}

// offsets returns the first offset of the topic and its end: what read_committed readers may see now.
func (s *Store) offsets(ctx context.Context) (start, end int64, err error) {
	admin := kadm.NewClient(s.client)
	starts, err := admin.ListStartOffsets(ctx, s.topic)
	if err != nil {
		return 0, 0, fmt.Errorf("list start offset of state topic %q: %w", s.topic, err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, s.topic)
	if err != nil {
		return 0, 0, fmt.Errorf("list end offset of state topic %q: %w", s.topic, err)
	}
	if err := errors.Join(starts.Error(), ends.Error()); err != nil {
		return 0, 0, fmt.Errorf("list offsets of state topic %q: %w", s.topic, err)
	}
	first, _ := starts.Lookup(s.topic, 0)
	last, ok := ends.Lookup(s.topic, 0)
	if !ok {
		return 0, 0, fmt.Errorf("list offsets of state topic %q: the brokers answered without its partition", s.topic)
	}
	return first.Offset, last.Offset, nil
}

// ensureTopic creates the state topic if it is missing and looks at its shape if it is there. Small segments let the
// compaction keep up with twenty records a second.
func (s *Store) ensureTopic(ctx context.Context) error {
	admin := kadm.NewClient(s.client)
	topics, err := admin.ListTopics(ctx, s.topic)
	if err != nil {
		return fmt.Errorf("look for state topic %q: %w", s.topic, err)
	}
	detail := topics[s.topic]
	switch {
	case errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
	case detail.Err != nil:
		return fmt.Errorf("look for state topic %q: %w", s.topic, detail.Err)
	case len(detail.Partitions) != 1:
		return &TopicError{Topic: s.topic, Partitions: len(detail.Partitions)}
	default:
		s.checkCleanup(ctx, admin)
		return nil
	}
	config := map[string]*string{
		"cleanup.policy":            kadm.StringPtr("compact"),
		"segment.bytes":             kadm.StringPtr("1048576"),
		"segment.ms":                kadm.StringPtr("600000"),
		"min.cleanable.dirty.ratio": kadm.StringPtr("0.1"),
	}
	created, err := admin.CreateTopic(ctx, 1, -1, config, s.topic)
	if err == nil {
		err = created.Err
	}
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create state topic %q (one partition, cleanup.policy=compact): %w", s.topic, err)
	}
	s.log.Info().Str("topic", s.topic).Msg("state topic created: one partition, compacted")
	return s.awaitTopic(ctx, admin)
}

// checkCleanup warns, once, of a topic that forgets its records with time. A position that is gone is no loss: the slot's is
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
		if policy := c.MaybeValue(); c.Key == "cleanup.policy" && policy != "compact" {
			s.log.Warn().Str("topic", s.topic).Str("cleanup.policy", policy).
				Msg("the state topic forgets old positions: set its cleanup.policy to compact alone")
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
