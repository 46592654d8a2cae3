package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Load reads the state topic up to its present end and returns the state of the source; stored is
// false if there is none. It creates the topic if it is missing, and reads each record only once.
// All records of the source count, see [State.Merge].
//
// Load waits for open transactions to end: one that a relay left open when it was killed hides the
// records committed after it.
func (s *Store) Load(ctx context.Context) (state State, stored bool, err error) {
	return s.load(ctx, (*kadm.Client).ListEndOffsets)
}

// LoadCommitted is Load without the wait, so what it returns may be older. That is enough to
// estimate where to start, and the open transaction of a predecessor that is not fenced yet does
// not hold it up.
func (s *Store) LoadCommitted(ctx context.Context) (state State, stored bool, err error) {
	return s.load(ctx, (*kadm.Client).ListCommittedOffsets)
}

// listEnd lists the ends of topics: that of all records, or that of the records before the first
// open transaction.
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
	if id != s.cache.topic || end < s.cache.next { // another topic of that name
		s.cache = cache{topic: id, states: map[string]State{}}
	}
	ours := func(source string) bool { return source == s.source }
	if err := s.read(ctx, max(start, s.cache.next), end, s.cache.states, ours); err != nil {
		return State{}, false, err
	}
	s.cache.next = end
	state, stored = s.cache.states[s.source]
	return state, stored, nil
}

// Peek returns the states of the wanted sources without waiting; hidden says that an open
// transaction may hide newer ones. It creates nothing: without a topic there are none.
func (s *Store) Peek(
	ctx context.Context, wanted func(source string) bool,
) (states map[string]State, hidden bool, err error) {
	_, exists, err := s.describeTopic(ctx, kadm.NewClient(s.client))
	if err != nil || !exists {
		return nil, false, err
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

// read adds the records between two offsets to states. It may take long, as long as records arrive.
func (s *Store) read(
	ctx context.Context, start, end int64, states map[string]State, wanted func(source string) bool,
) error {
	if start >= end {
		return nil
	}
	reader, err := kgo.NewClient(append(append([]kgo.Opt(nil), s.opts...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topic: {0: kgo.NewOffset().At(start)}}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// The last record may be the marker of a transaction: without it, the end is never reached.
		kgo.KeepControlRecords(),
	)...)
	if err != nil {
		return fmt.Errorf("create reader of state topic %q: %w", s.topic, err)
	}
	defer reader.Close()
	for next := start; next < end; {
		fetches := poll(ctx, reader, s.timeout)
		if err := firstFetchError(fetches); err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("%w: the brokers do not answer, or an open Kafka transaction, such as that "+
					"of a relay that was killed, hides the end of the topic until they abort it", err)
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

// poll waits for the next records, at most for the timeout.
func poll(ctx context.Context, reader *kgo.Client, timeout time.Duration) kgo.Fetches {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return reader.PollFetches(ctx)
}

func firstFetchError(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		return e.Err
	}
	return nil
}

// offsets returns the first offset of the topic and its end.
func (s *Store) offsets(ctx context.Context, list listEnd) (start, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
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
