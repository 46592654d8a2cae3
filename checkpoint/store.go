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
	seen   seen

	patience time.Duration // with the brokers, for one answer
}

// NewStore returns a Store that talks to the brokers named in opts (seeds, TLS, SASL). It does not connect yet.
func NewStore(opts []kgo.Opt, topic, source string, log zerolog.Logger) (*Store, error) {
	s := &Store{opts: opts, topic: topic, source: source, log: log, patience: longPatience}
	var err error
	if s.client, err = s.connect(); err != nil {
		return nil, err
	}
	return s, nil
}

// connect returns a client that writes.
func (s *Store) connect() (*kgo.Client, error) {
	client, err := kgo.NewClient(append(append([]kgo.Opt(nil), s.opts...),
		// An address that accepts and closes, as load balancers do without a backend, is an outage and no refusal.
		kgo.AlwaysRetryEOF(),
		// A batch that is to be sent again waits for fresh metadata: with the default of 5 s a moved leader costs that much.
		kgo.MetadataMinAge(250*time.Millisecond),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		// A state topic that vanished is an outage to wait for, not a position to forget.
		kgo.UnknownTopicRetries(-1),
	)...)
	if err != nil {
		return nil, fmt.Errorf("create client for state topic %q: %w", s.topic, err)
	}
	return client, nil
}

// renew replaces the client after the topic was deleted and made again: it holds on to the one that it knows. A client that is told to
// forget a topic may number its records from the start again, which brokers take for repeats.
func (s *Store) renew() error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	s.client.Close()
	s.client = client
	return nil
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

// Reset makes this state the right one, even if it lies before the one that is stored: before, the zero State if there is none.
// Only an operator who has dealt with a gap may want that. It is one record, so there is no moment without a position.
func (s *Store) Reset(ctx context.Context, before, state State) error {
	state.Generation = before.Generation + 1
	return s.Save(ctx, state)
}

// write does not use ProduceSync: a record that is on its way cannot be taken back, and ProduceSync would wait for its
// fate beyond the end of ctx. Nor does the record carry ctx: the client, when one of its records is given up, may give up
// those that follow it as well.
func (s *Store) write(ctx context.Context, value []byte) error {
	done := make(chan error, 1)
	record := &kgo.Record{Topic: s.topic, Key: []byte(s.source), Value: value}
	s.client.Produce(context.WithoutCancel(ctx), record, func(_ *kgo.Record, err error) { done <- err })
	look := time.NewTicker(lookForTopic)
	defer look.Stop()
	for {
		select {
		case err := <-done:
			if errors.Is(err, kerr.UnknownTopicID) {
				err = errors.Join(err, s.renew())
			}
			if err != nil {
				return fmt.Errorf("write to state topic %q: %w", s.topic, err)
			}
			return nil
		case <-look.C: // the client would wait for a topic that was deleted until somebody makes it
			var unfit *TopicError
			if _, err := s.ensureTopic(ctx); errors.As(err, &unfit) {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("write to state topic %q: %w", s.topic, ctx.Err())
		}
	}
}

// lookForTopic is after how long a write looks whether its topic is there.
const lookForTopic = 5 * time.Second

// Load reads the state topic to the end offset it has at the moment of the call and returns the state of the source;
// stored is false if there is none. It creates the topic if it is missing. What it has read once it does not read again.
//
// All records of the source count, as [State.Merge] says.
//
// It waits for the fate of open transactions: one that another relay left open when it was killed hides what was committed
// behind it.
func (s *Store) Load(ctx context.Context) (state State, stored bool, err error) {
	return s.load(ctx, (*kadm.Client).ListEndOffsets)
}

// Glance is Load without the wait: what it returns may be older. It is enough to guess where to start, and is not held up by
// the transaction of a predecessor that is still to be fenced.
func (s *Store) Glance(ctx context.Context) (state State, stored bool, err error) {
	return s.load(ctx, (*kadm.Client).ListCommittedOffsets)
}

// listEnd lists an end of topics: that of all records, or that of those which are not in or behind an open transaction.
type listEnd func(admin *kadm.Client, ctx context.Context, topics ...string) (kadm.ListedOffsets, error)

func (s *Store) load(ctx context.Context, list listEnd) (state State, stored bool, err error) {
	id, err := s.ensureTopic(ctx)
	if err != nil {
		return State{}, false, err
	}
	start, end, err := s.offsets(ctx, list)
	if err != nil {
		return State{}, false, err
	}
	if id != s.seen.topic || end < s.seen.next {
		s.seen = seen{topic: id, states: map[string]State{}} // another topic of that name
	}
	err = s.read(ctx, max(start, s.seen.next), end, s.seen.states, func(source string) bool { return source == s.source })
	if err != nil {
		s.seen = seen{}
		return State{}, false, err
	}
	s.seen.next = end
	state, stored = s.seen.states[s.source]
	return state, stored, nil
}

// seen is what was read of the state topic.
type seen struct {
	topic  kadm.TopicID
	next   int64
	states map[string]State
}

// Peek returns the states of the wanted sources without a wait; hidden says that an open transaction may hide newer ones. It
// creates nothing: without a topic there are none.
func (s *Store) Peek(ctx context.Context, wanted func(source string) bool) (states map[string]State, hidden bool, err error) {
	topics, err := kadm.NewClient(s.client).ListTopics(ctx, s.topic)
	if err != nil {
		return nil, false, fmt.Errorf("look for state topic %q: %w", s.topic, err)
	}
	detail := topics[s.topic]
	switch {
	case errors.Is(detail.Err, kerr.UnknownTopicOrPartition):
		return nil, false, nil
	case detail.Err != nil:
		return nil, false, fmt.Errorf("look for state topic %q: %w", s.topic, detail.Err)
	case len(detail.Partitions) != 1:
		return nil, false, &TopicError{Topic: s.topic, Partitions: len(detail.Partitions)}
	}
	start, stable, err := s.offsets(ctx, (*kadm.Client).ListCommittedOffsets)
	if err != nil {
		return nil, false, err
	}
	_, end, err := s.offsets(ctx, (*kadm.Client).ListEndOffsets)
	if err != nil {
		return nil, false, err
	}
	states = map[string]State{}
	return states, stable < end, s.read(ctx, start, stable, states, wanted)
}

// read adds what lies between two offsets to states. However much that is, it goes on as long as records come.
func (s *Store) read(ctx context.Context, start, end int64, states map[string]State, wanted func(source string) bool) error {
	if start >= end {
		return nil
	}
	reader, err := kgo.NewClient(append(append([]kgo.Opt(nil), s.opts...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topic: {0: kgo.NewOffset().At(start)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// The end of the topic may be a transaction's marker: it has to be seen to know that the end is reached.
		kgo.KeepControlRecords(),
	)...)
	if err != nil {
		return fmt.Errorf("create reader of state topic %q: %w", s.topic, err)
	}
	defer reader.Close()
	for next := start; next < end; {
		fetches := poll(ctx, reader, s.patience)
		if err := firstFetchError(fetches); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("%w: an open Kafka transaction hides its end, of a relay that was killed for one, until the brokers end it; or they do not answer", err)
			}
			return fmt.Errorf("read state topic %q: %w", s.topic, err)
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
				return &RecordError{s.topic, r.Offset, err}
			}
			if state, stored := states[source]; stored {
				read = state.Merge(read)
			}
			states[source] = read
		}
	}
	return nil
}

// poll waits for the next records, but not for ever.
func poll(ctx context.Context, reader *kgo.Client, patience time.Duration) kgo.Fetches {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return reader.PollFetches(ctx)
}

func firstFetchError(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		return e.Err
	}
	return nil
}

// longPatience is how long the brokers may take for one answer, and another relay's open transaction for its end.
const longPatience = 20 * time.Second

// offsets returns the first offset of the topic and its end.
func (s *Store) offsets(ctx context.Context, list listEnd) (start, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	admin := kadm.NewClient(s.client)
	starts, err := admin.ListStartOffsets(ctx, s.topic)
	if err != nil {
		return 0, 0, fmt.Errorf("list start offset of state topic %q: %w", s.topic, err)
	}
	ends, err := list(admin, ctx, s.topic)
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
