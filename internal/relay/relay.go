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
	Topic        *sink.Template
	StateTopic   string
	CreateTopics bool
	MaxInFlight  int64 // bytes, from the oldest event that the brokers have not confirmed
	Linger       time.Duration
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

// Relay publishes the events of one slot.
type Relay struct {
	cfg    Config
	log    zerolog.Logger
	health *sink.Health

	// Of the goroutine that calls Run.
	system string // the cluster of the first session; every later one must be the same
	out    *sink.Sink
	store  *checkpoint.Store
	last   checkpoint.State // where the last session ended; zero before
	room   chan struct{}    // the pump may ask again whether there is room
	pause  time.Duration

	mu   sync.Mutex
	view view
}

// New returns a Relay. It connects when it runs.
func New(cfg Config) *Relay {
	return &Relay{
		cfg: cfg, log: cfg.Log, room: make(chan struct{}, 1), health: sink.NewHealth(cfg.Log.With().Str("component", "sink").Logger()),
		view: view{state: Starting, reason: "starting"},
	}
}

// Run relays until ctx ends, drains, and returns nil; or until an operator must act, and returns a [*Halt]. Outages of
// Postgres and Kafka are waited for. [ErrDrain] means that the drain took too long.
func (r *Relay) Run(ctx context.Context) error {
	defer r.close()
	for {
		began := time.Now()
		err := r.session(ctx)
		if time.Since(began) > longPause {
			r.pause = 0 // what ends so late is no repetition of the last failure
		}
		if err == nil || (ctx.Err() != nil && (errors.Is(err, context.Canceled) || transient(err))) {
			r.setState(Stopped, "stopped")
			return nil
		}
		if !transient(err) {
			r.setState(Stopped, "stopped: "+err.Error())
			return r.halt(err)
		}
		r.report(err)
		if !r.backOff(ctx, err) {
			r.setState(Stopped, "stopped")
			return nil
		}
	}
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

// report says once a change why there is no session.
func (r *Relay) report(err error) {
	if errors.Is(err, errMoved) {
		return
	}
	if errors.Is(err, cdc.ErrSlotInUse) {
		if r.setState(Waiting, err.Error()) {
			r.log.Info().Str("slot", r.cfg.CDC.Slot).Msg("another relay has the slot: waiting to take over")
		}
		return
	}
	if r.setState(Reconnecting, err.Error()) {
		r.log.Warn().Err(err).Msg("no stream: trying again, nothing is lost")
	}
}

// open makes the store and the sink once the first session has told whose events they are, and a sink whenever there is none.
func (r *Relay) open(system string) error {
	if r.system != "" && r.system != system {
		return &cdc.StopError{
			What: fmt.Sprintf("the server at this address is another cluster: system identifier %s, before %s", system, r.system),
			Hint: "check where the address of Postgres leads; a start of walpost accepts the other cluster, with a position of its own",
		}
	}
	source := system + "/" + r.cfg.CDC.Slot
	if r.store == nil {
		opts := append(append([]kgo.Opt(nil), r.cfg.Kafka...), kgo.WithHooks(r.health))
		if r.cfg.Dial != nil {
			opts = append(opts, kgo.Dialer(r.cfg.Dial))
		}
		store, err := checkpoint.NewStore(opts, r.cfg.StateTopic, source, r.log.With().Str("component", "checkpoint").Logger())
		if err != nil {
			return err
		}
		r.system, r.store = system, store
	}
	if r.out == nil || r.out.Closed() {
		out, err := sink.New(sink.Config{
			Client: r.cfg.Kafka, Dial: r.cfg.Dial, Topic: r.cfg.Topic, Source: source, StateTopic: r.cfg.StateTopic,
			CreateTopics: r.cfg.CreateTopics, Linger: r.cfg.Linger, Room: r.room, Before: r.out,
			Health: r.health, Observe: r.cfg.Observe, Log: r.log.With().Str("component", "sink").Logger(),
		})
		if err != nil {
			return err
		}
		r.out = out
	}
	r.mu.Lock()
	r.view.source, r.view.out = source, r.out
	r.mu.Unlock()
	return nil
}

// retire closes a sink that an outage has ended. The next session has a new one, and sends again what this one could not
// say of.
func (r *Relay) retire() {
	if err := r.out.Err(); err != nil && transient(err) {
		r.out.Close()
	}
}
