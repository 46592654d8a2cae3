package relay

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/sink"
)

// open makes the store once the first session has told whose events they are.
func (s *session) open(system string) error {
	if s.system != "" && s.system != system {
		return &cdc.StopError{
			What: fmt.Sprintf("the server at this address is another cluster: its system identifier is %s, it was %s",
				system, s.system),
			Hint: "check where the address of Postgres leads. A start of walpost accepts the other cluster, and keeps a position of its own for it",
		}
	}
	if s.store != nil {
		return nil
	}
	newStore := s.r.newStore
	if s.r.cfg.NewStore != nil {
		newStore = s.r.cfg.NewStore
	}
	store, err := newStore(system + "/" + s.r.cfg.CDC.Slot)
	if err != nil {
		return err
	}
	s.system, s.store = system, store
	return nil
}

// newStore makes the real one.
func (r *Relay) newStore(source string) (Store, error) {
	opts := append(append([]kgo.Opt(nil), r.cfg.Kafka...), kgo.WithHooks(r.health))
	if r.cfg.Dial != nil {
		opts = append(opts, kgo.Dialer(r.cfg.Dial))
	}
	return checkpoint.NewStore(opts, r.cfg.StateTopic, source, r.log.With().Str("component", "checkpoint").Logger())
}

// fence makes a sink, unless the last one can go on, and fences whoever produced before. The slot
// is held.
func (s *session) fence(ctx context.Context) error {
	if s.out == nil || s.out.Closed() {
		out, err := sink.New(s.sinkConfig())
		if err != nil {
			return err
		}
		s.out = out
	}
	s.r.producing(s.source(), s.out)
	defer s.patiently(ctx)()
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	if err := s.out.Begin(ctx); err != nil {
		return &kafkaError{err}
	}
	return nil
}

func (s *session) source() string { return s.r.source(s.system) }

func (r *Relay) source(system string) string { return system + "/" + r.cfg.CDC.Slot }

// TransactionalID is that of the relay of a source.
func TransactionalID(source string) string { return "walpost/" + source }

func (s *session) sinkConfig() sink.Config {
	r, given := s.r, s.sink
	given.Before = s.out
	cfg := sink.Config{
		Client: r.cfg.Kafka, Dial: r.cfg.Dial, NewClient: r.cfg.NewClient, Topic: r.cfg.Topic, Source: s.source(), StateTopic: r.cfg.StateTopic,
		CreateTopics: r.cfg.CreateTopics, MaxRequest: r.cfg.MaxRequest, Linger: r.cfg.Linger, Room: r.room, Store: s.store, Handover: given,
		Health: r.health, Observe: r.cfg.Observe, Log: r.log.With().Str("component", "sink").Logger(),
	}
	if r.cfg.ExactlyOnce {
		cfg.Exactly = &sink.Exactly{ID: TransactionalID(s.source()), Interval: r.cfg.Interval, Bytes: r.batch(), Guarantee: s.guarantee}
	}
	return cfg
}

// batch is how many bytes a Kafka transaction may hold: while one is committed, the next one is
// filled.
func (r *Relay) batch() int64 { return min(r.cfg.Batch, r.cfg.MaxInFlight/2) }

// guarantee says what consumers may rely on, once and when a session finds that it has changed.
func (s *session) guarantee(strong bool) {
	switch {
	case s.said.guarantee != nil && *s.said.guarantee == strong:
	case strong:
		s.log.Info().Msg("exactly once, for consumers with isolation.level=read_committed")
	default:
		s.log.Warn().Msg("effectively once: before Kafka 4.0 (transaction.version 2) a delayed request may become part of a later transaction")
	}
	s.said.guarantee = &strong
	s.r.guaranteed(strong)
}
