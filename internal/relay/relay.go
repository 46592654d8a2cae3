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

const (
	firstPause = 100 * time.Millisecond
	longPause  = 5 * time.Second
	// slotPause is the longest pause between two attempts to take a slot that another relay holds.
	slotPause = 2 * time.Second
)

// Store keeps the position of one source. [checkpoint.Store] is one, and its documentation says what each method promises.
type Store interface {
	Load(ctx context.Context) (state checkpoint.State, stored bool, err error)
	Glance(ctx context.Context) (state checkpoint.State, stored bool, err error)
	Save(ctx context.Context, state checkpoint.State) error
	Close()
}

// Relay publishes the events of one slot.
type Relay struct {
	cfg    Config
	log    zerolog.Logger
	health *sink.Health

	// Of the goroutine that calls Run.
	system  string // the cluster of the first session; every later one must be the same
	out     *sink.Sink
	store   Store
	debt    *debt            // a start now would repeat events; nil = it would not
	last    checkpoint.State // where the last session ended; zero before
	sent    checkpoint.State // how far events of it may be published
	refused *sink.EventError // what the brokers refused, perhaps for the sake of another; nil = nothing
	stuck   *sink.EventError // with which an outage ended the last sink; nil = with none
	first   int64            // bytes that the first Kafka transaction of a session may hold, with exactly once
	text    bool             // columns shall not come in binary form
	warned  map[string]bool  // what [cdc.View.Warnings] has found so far
	claimed *bool            // whether they are good for exactly once, as was last said; nil = it was not
	room    chan struct{}    // the pump may ask again whether there is room
	pause   time.Duration
	outage  sink.Notice // why there is no session
	former  int         // the process of Postgres that served the last stream

	mu   sync.Mutex
	view view
	told string // what an inquiry at the brokers found last
}

// New returns a Relay. It connects when it runs.
func New(cfg Config) *Relay {
	health := sink.NewHealth(cfg.Log.With().Str("component", "sink").Logger())
	health.Login = cfg.Login
	return &Relay{
		cfg: cfg, log: cfg.Log, room: make(chan struct{}, 1), warned: map[string]bool{}, health: health,
		view: view{state: Starting, reason: "starting"},
	}
}

// Run relays until ctx ends, drains, and returns nil; or until an operator must act, and returns a [*Halt]. Outages of
// Postgres and Kafka are waited for. [ErrDrain] means that the drain took too long.
func (r *Relay) Run(ctx context.Context) error {
	defer r.close()
	defer context.AfterFunc(ctx, func() { r.log.Info().Msg("stopping: waiting for the events in flight") })()
	for {
		began := time.Now()
		err := r.session(ctx)
		if time.Since(began) > longPause {
			r.pause = 0 // what ends so late is no repetition of the last failure
		}
		if err == nil || (ctx.Err() != nil && (errors.Is(err, context.Canceled) || transient(err))) {
			return r.stopped(ctx)
		}
		if !transient(err) {
			r.setState(Stopped, "stopped: "+err.Error())
			return r.halt(err)
		}
		err = r.explain(ctx, err)
		r.report(err)
		if !r.backOff(ctx, err) {
			return r.stopped(ctx)
		}
	}
}

// stopped is the end of a stop. Nothing is in flight between two sessions, but the last one may have left its position behind.
func (r *Relay) stopped(ctx context.Context) error {
	r.setState(Stopped, "stopped")
	if r.owes(ctx) {
		return &Halt{Err: fmt.Errorf("%w: nothing is lost, but some events will be sent again: %w", ErrDrain, r.debt.why)}
	}
	if r.last.End == 0 {
		r.log.Info().Msg("stopped: it has had no stream")
		return nil
	}
	r.log.Info().Stringer("lsn", r.last.End).Msg("stopped: everything received is published and stored")
	return nil
}

func (r *Relay) close() {
	if r.out != nil {
		r.out.Close()
	}
	if r.store != nil {
		r.store.Close()
	}
}

// backOff pauses before the next session; false means that ctx has ended. The jitter keeps relays of one broken server
// from coming back in step.
func (r *Relay) backOff(ctx context.Context, err error) bool {
	longest := longPause
	switch {
	case errors.Is(err, errMoved):
		return ctx.Err() == nil // at once: the slot is free, only our knowledge was old
	case errors.Is(err, cdc.ErrSlotInUse):
		longest = slotPause
	}
	r.pause = min(max(r.pause*2, firstPause), longest)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(r.pause/2 + rand.N(r.pause/2)):
		return true
	}
}

// report says why there is no session.
func (r *Relay) report(err error) {
	if errors.Is(err, errMoved) {
		return
	}
	state, reason := Reconnecting, err.Error()
	var held *heldError
	former := errors.As(err, &held) && held.former
	if errors.Is(err, cdc.ErrSlotInUse) {
		state = Waiting
		if !former {
			reason = "held" // whoever has it: relays that take turns are one reason
		}
	}
	r.setState(state, err.Error())
	if explained := r.unexplained(err); !r.outage.Due("", reason) && !explained {
		return
	}
	lasted := r.outage.Lasted()
	switch {
	case state == Waiting && !former:
		r.log.Info().Str("slot", r.cfg.CDC.Slot).Err(err).Dur("outage_ms", lasted).Msg("another relay has the slot: waiting to take over")
	case former:
		r.log.Warn().Str("slot", r.cfg.CDC.Slot).Int("pid", held.pid).Dur("outage_ms", lasted).
			Msg("Postgres has not let go of our former connection yet: waiting, nothing is lost. It does once it notices, at the latest " +
				"after wal_sender_timeout; if it is decoding a large transaction, after that. " +
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

// open makes the store once the first session has told whose events they are.
func (r *Relay) open(system string) error {
	if r.system != "" && r.system != system {
		return &cdc.StopError{
			What: fmt.Sprintf("the server at this address is another cluster: system identifier %s, before %s", system, r.system),
			Hint: "check where the address of Postgres leads; a start of walpost accepts the other cluster, with a position of its own",
		}
	}
	if r.store != nil {
		return nil
	}
	newStore := r.newStore
	if r.cfg.NewStore != nil {
		newStore = r.cfg.NewStore
	}
	store, err := newStore(system + "/" + r.cfg.CDC.Slot)
	if err != nil {
		return err
	}
	r.system, r.store = system, store
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

// takeOver makes a sink, unless the last one can go on, and takes over from whoever produced before. The slot is held.
func (r *Relay) takeOver(ctx context.Context) error {
	if r.out == nil || r.out.Closed() {
		out, err := sink.New(r.sinkConfig())
		if err != nil {
			return err
		}
		r.out = out
	}
	r.mu.Lock()
	r.view.source, r.view.out = r.source(), r.out
	r.mu.Unlock()
	defer r.patiently(ctx)()
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	if err := r.out.Begin(ctx); err != nil {
		return &kafkaError{err}
	}
	return nil
}

func (r *Relay) source() string { return r.system + "/" + r.cfg.CDC.Slot }

// TransactionalID is that of the relay of a source.
func TransactionalID(source string) string { return "walpost/" + source }

func (r *Relay) sinkConfig() sink.Config {
	cfg := sink.Config{
		Client: r.cfg.Kafka, Dial: r.cfg.Dial, NewClient: r.cfg.NewClient, Topic: r.cfg.Topic, Source: r.source(), StateTopic: r.cfg.StateTopic,
		CreateTopics: r.cfg.CreateTopics, MaxRequest: r.cfg.MaxRequest, Linger: r.cfg.Linger, Room: r.room, Before: r.out, Store: r.store, Refused: r.refused, Stuck: r.stuck,
		Health: r.health, Observe: r.cfg.Observe, Log: r.log.With().Str("component", "sink").Logger(),
	}
	if r.cfg.ExactlyOnce {
		cfg.Exactly = &sink.Exactly{ID: TransactionalID(r.source()), Interval: r.cfg.Interval, Bytes: r.batch(), First: r.first, Claim: r.claim}
	}
	return cfg
}

// batch is how many bytes a Kafka transaction may hold: while one is committed, the next one is filled.
func (r *Relay) batch() int64 { return min(r.cfg.Batch, r.cfg.MaxInFlight/2) }

// claim says what consumers may rely on, once and when a session finds that it has changed.
func (r *Relay) claim(strong bool) {
	switch {
	case r.claimed != nil && *r.claimed == strong:
	case strong:
		r.log.Info().Msg("exactly once, for consumers with isolation.level=read_committed")
	default:
		r.log.Warn().Msg("effectively once: before Kafka 4.0 (transaction.version 2) a request that is delayed on its way may become part of a later transaction")
	}
	r.claimed = &strong
	r.mu.Lock()
	defer r.mu.Unlock()
	r.view.weak = !strong
}

// retire closes a sink that cannot go on: an error has ended it, or the next session has to fence it. What it could not
// say of is sent again, or found in the state topic.
func (r *Relay) retire() {
	if r.out == nil {
		return
	}
	if n := r.out.Stats().Events; r.out.Err() != nil && n > 0 && !r.cfg.ExactlyOnce && !r.out.Closed() {
		r.owe(fmt.Errorf("%d events that were on their way were given up when the producer failed, and others behind them may be published", n), r.sent)
	}
	if r.cfg.ExactlyOnce || r.out.Err() != nil {
		r.out.Close()
	}
}
