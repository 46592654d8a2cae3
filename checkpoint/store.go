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

const (
	// answerTimeout is how long the brokers may take for one answer, and the open transaction of
	// another relay for its end.
	answerTimeout = 20 * time.Second
	// topicCheckInterval is how often a write that waits checks that the topic exists.
	topicCheckInterval = 5 * time.Second
)

// Store stores the position of one source in a compacted topic of one partition. One goroutine uses
// it at a time.
type Store struct {
	client  *kgo.Client
	opts    []kgo.Opt
	topic   string
	source  string
	log     zerolog.Logger
	timeout time.Duration // see answerTimeout

	cache          cache // what was read of the topic
	cleanupChecked bool  // the settings of the topic were checked
}

// cache holds what was read of the state topic, so that it is read only once.
type cache struct {
	topic  kadm.TopicID
	next   int64 // the offset to read next
	states map[string]State
}

// NewStore returns a Store that talks to the brokers named in opts (seeds, TLS, SASL). It does not
// connect yet.
func NewStore(opts []kgo.Opt, topic, source string, log zerolog.Logger) (*Store, error) {
	s := &Store{opts: opts, topic: topic, source: source, log: log, timeout: answerTimeout}
	var err error
	if s.client, err = s.connect(); err != nil {
		return nil, err
	}
	return s, nil
}

// connect returns a client that writes.
func (s *Store) connect() (*kgo.Client, error) {
	client, err := kgo.NewClient(append(append([]kgo.Opt(nil), s.opts...),
		// An address that accepts a connection and closes it, as load balancers without a backend
		// do, is an outage.
		kgo.AlwaysRetryEOF(),
		// A batch that is sent again waits for fresh metadata: by default, a moved leader costs 5
		// s.
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

// renew replaces the client after the topic was deleted and created again: a client goes on using
// the topic that it knows. If it were told to forget that one, it might number its records from the
// start again, and the brokers would take them for repeats.
func (s *Store) renew() error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	s.client.Close()
	s.client = client
	return nil
}

// Close drops the connections. A write in flight may or may not reach the brokers.
func (s *Store) Close() { s.client.Close() }

// Save writes the state and returns once the brokers have confirmed it. After an error it is
// unknown whether the write succeeds; it never overtakes a later Save.
func (s *Store) Save(ctx context.Context, state State) error {
	value, err := state.Encode(s.source)
	if err != nil {
		return err
	}
	return s.write(ctx, value)
}

// Reset makes state the one that counts, even if it lies before the stored one. before is the
// stored state, or the zero State. Only an operator who has dealt with a gap may want that. It is
// one record, so there is never a moment without a position.
func (s *Store) Reset(ctx context.Context, before, state State) error {
	state.Generation = before.Generation + 1
	return s.Save(ctx, state)
}

// write does not use ProduceSync, which would wait for the record beyond the end of ctx: a record
// in flight cannot be taken back. Nor does the record carry ctx: when the client gives up one of
// its records, it may give up those that follow, too.
func (s *Store) write(ctx context.Context, value []byte) error {
	done := make(chan error, 1)
	record := &kgo.Record{Topic: s.topic, Key: []byte(s.source), Value: value}
	s.client.Produce(context.WithoutCancel(ctx), record, func(_ *kgo.Record, err error) { done <- err })
	check := time.NewTicker(topicCheckInterval)
	defer check.Stop()
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
		case <-check.C: // the client would wait until somebody creates a deleted topic again
			var unfit *TopicError
			if _, err := s.ensureTopic(ctx); errors.As(err, &unfit) {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("write to state topic %q: %w", s.topic, ctx.Err())
		}
	}
}
