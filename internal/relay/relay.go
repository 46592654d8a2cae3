package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/sink"
)

// Config is what a Relay needs to know.
type Config struct {
	CDC          cdc.Config
	Columns      map[string]string // logical name -> the table's own; absent = the same
	Kafka        []kgo.Opt         // seeds and SASL; no dialer
	Dial         func(ctx context.Context, network, addr string) (net.Conn, error)
	Login        string                                     // at the brokers, as in [sink.Health]
	NewClient    func(opts ...kgo.Opt) (sink.Client, error) // nil = [kgo.NewClient]
	NewStore     func(source string) (Store, error)         // nil = [checkpoint.NewStore] on the state topic
	Topic        *sink.Template
	StateTopic   string
	CreateTopics bool
	MaxRequest   int64 // bytes of a request to the brokers; 0 = their default, 100 MiB
	MaxInFlight  int64 // bytes, from the oldest event that the brokers have not confirmed
	Linger       time.Duration
	ExactlyOnce  bool
	Interval     time.Duration // how long a Kafka transaction may stay open, with exactly once
	Batch        int64         // bytes that a Kafka transaction may hold, with exactly once
	DrainTimeout time.Duration
	Observe      func(latency time.Duration) // of each event, from its commit to the brokers' confirmation
	Log          zerolog.Logger
}

// Store keeps the position of one source. [checkpoint.Store] is one, and its documentation says
// what each method promises.
type Store interface {
	Load(ctx context.Context) (state checkpoint.State, stored bool, err error)
	LoadCommitted(ctx context.Context) (state checkpoint.State, stored bool, err error)
	Save(ctx context.Context, state checkpoint.State) error
	Close()
}

// Relay publishes the events of one slot. What one session leaves to the next is a [handover]; a
// Relay itself changes only in what Status shows.
type Relay struct {
	cfg    Config
	log    zerolog.Logger
	health *sink.Health
	room   chan struct{} // wakes the loop of a session: ask again whether there is room

	mu   sync.Mutex
	view view
}

// New returns a Relay. It connects when it runs.
func New(cfg Config) *Relay {
	health := sink.NewHealth(cfg.Log.With().Str("component", "sink").Logger())
	health.Login = cfg.Login
	return &Relay{
		cfg: cfg, log: cfg.Log, room: make(chan struct{}, 1), health: health,
		view: view{state: Starting, reason: "starting"},
	}
}

// Run relays until ctx ends, drains, and returns nil; or until an operator must act, and returns a
// [*Halt]. It waits while Postgres or Kafka is away. [ErrDrain] means that the drain took too long.
func (r *Relay) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { r.log.Info().Msg("stopping: waiting for the events in flight") })()
	h := newHandover()
	defer func() { h.closeAll() }()
	for {
		var o outcome
		h, o = r.session(ctx, h)
		before := h.sink.First
		var next step
		h, next = r.decide(h, o)
		switch next.action {
		case stop:
			return r.stopped(ctx, h)
		case halt:
			r.setState(Stopped, "stopped: "+next.err.Error())
			return next.err
		}
		if h.sink.First != before {
			r.log.Warn().Int64("bytes", h.sink.First).Msg("a Kafka transaction took too long: the next ones hold less")
		}
		o.err = next.err
		r.report(r.explain(ctx, h, o), o.class, h.said)
		if !wait(ctx, next.pause) {
			return r.stopped(ctx, h)
		}
	}
}

// stopped ends a stop. Nothing is in flight between two sessions, but the last one may have left
// its position unstored.
func (r *Relay) stopped(ctx context.Context, h handover) error {
	r.setState(Stopped, "stopped")
	if h.repeats(ctx) {
		return &Halt{Err: fmt.Errorf("%w: nothing is lost, but a start sends some events again: %w", ErrDrain, h.pending.why)}
	}
	if h.last.End == 0 {
		r.log.Info().Msg("stopped: it has had no stream")
		return nil
	}
	r.log.Info().Stringer("lsn", h.last.End).Msg("stopped: everything received is published and stored")
	return nil
}

// wait pauses before the next session; false means that ctx has ended. The jitter keeps the relays
// of one broken server from coming back in step.
func wait(ctx context.Context, pause time.Duration) bool {
	if pause == 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause/2 + rand.N(pause/2)):
		return true
	}
}

// report says why there is no session, unless another begins at once.
func (r *Relay) report(err error, c class, said *said) {
	if c == stale {
		return
	}
	state, reason := Reconnecting, err.Error()
	var held *heldError
	former := errors.As(err, &held) && held.former
	if c == slotHeld {
		state = Waiting
		if !former {
			reason = "held" // whoever has it: relays that take turns are one reason
		}
	}
	r.setState(state, err.Error())
	if explained := said.unexplained(err); !said.outage.Due("", reason) && !explained {
		return
	}
	lasted := said.outage.Lasted()
	switch {
	case state == Waiting && !former:
		r.log.Info().Str("slot", r.cfg.CDC.Slot).Err(err).Dur("outage_ms", lasted).Msg("another relay has the slot: waiting to take over")
	case former:
		r.log.Warn().Str("slot", r.cfg.CDC.Slot).Int("pid", held.pid).Dur("outage_ms", lasted).
			Msg("Postgres has not let go of our former connection yet: waiting, nothing is lost. It notices within " +
				"wal_sender_timeout, or once it has decoded a large transaction. " +
				fmt.Sprintf("SELECT pg_terminate_backend(%d) ends it at once", held.pid))
	default:
		r.log.Warn().Err(err).Dur("outage_ms", lasted).Msg("no stream: trying again, nothing is lost")
	}
}

// heldError says which process of Postgres reads the slot.
type heldError struct {
	slot   string
	pid    int
	former bool // it served our last stream
}

func (e *heldError) Error() string {
	if e.former {
		return fmt.Sprintf("slot %q: Postgres has not let go of our former connection yet (pid %d)", e.slot, e.pid)
	}
	return fmt.Sprintf("slot %q: %v (pid %d)", e.slot, cdc.ErrSlotInUse, e.pid)
}

func (e *heldError) Unwrap() error { return cdc.ErrSlotInUse }
