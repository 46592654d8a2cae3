package sink

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
)

// Config says where and how to produce.
type Config struct {
	Client       []kgo.Opt                                                         // seeds, SASL; neither a dialer nor anything about producing
	Dial         func(ctx context.Context, network, addr string) (net.Conn, error) // nil = plain TCP
	NewClient    func(opts ...kgo.Opt) (Client, error)                             // nil = [kgo.NewClient]
	Topic        *Template
	Source       string // header source: <system identifier>/<slot>
	StateTopic   string // where no event may go
	CreateTopics bool
	MaxRequest   int64 // bytes of the largest request; 0 = the brokers' default of socket.request.max.bytes
	Linger       time.Duration
	Store        Store           // of positions, for at least once
	Exactly      *Exactly        // nil = at least once
	Handover                     // of the Sink before
	Room         chan<- struct{} // told, without waiting for it, when a sink that was Held may take the next event
	Health       *Health
	Observe      func(latency time.Duration) // called per confirmed event with the time since its commit; nil = nobody asks
	Log          zerolog.Logger
}

// Handover is what one Sink leaves to the next. The zero value is for the first.
type Handover struct {
	Before *Sink // it was closed: its counts go on; nil = there was none
	// Refused is an event that the brokers refused, perhaps for the sake of another in the same
	// batch. What is before it is published first, and from it on each event is sent in a batch of
	// its own, until one is refused. Nil = there is none.
	Refused *EventError
	// Stuck is the event with which the Sink before failed although nobody refused it. What is
	// before it is published first, then that event alone, and nothing behind it until it is: a
	// Sink that fails again with it repeats nothing. Nil = there is none.
	Stuck *EventError
	// First is what the first Kafka transaction may hold, in bytes; each next one holds more while
	// they do not take long. 0 = as much as Exactly says.
	First int64
}

// Sink produces events.
//
// One goroutine produces: it calls Start, Produce, Held and Reached; all else may be called by any.
// Produce finds the topic of an event, builds a flight, which owns copies of its bytes, and asks
// ordering whether something has to happen before more is produced. The flight then belongs to the
// delivery and the client. The client calls its promise; once the event is published, its mark is
// told and its memory is used again.
type Sink struct {
	cfg    Config
	log    zerolog.Logger
	client Client

	// From an event to the client.
	topics    topics
	builder   builder
	order     ordering
	resolver  resolver
	preparing sync.WaitGroup // the goroutine that prepares a topic while the producer is held
	how       delivery
	promise   func(*flight, error) // of every record: done

	// What is in flight.
	inFlight inFlight
	bytes    atomic.Int64

	// The first permanent error. It is latched under mu, then failed is closed; nothing is sent
	// after it. What the client has buffered by then stops at the wire gate.
	gate   *wireGate
	failed chan struct{}
	mu     sync.Mutex
	err    error
	causes map[string]uint64 // permanent errors by reason

	// Why events wait.
	health  *Health
	trouble trouble

	ctx    context.Context // ended by Close
	cancel context.CancelFunc
}

// New returns a Sink. It connects with the first event.
func New(cfg Config) (*Sink, error) {
	if cfg.MaxRequest == 0 {
		cfg.MaxRequest = maxRequest
	}
	s := &Sink{
		cfg: cfg, log: cfg.Log, health: cfg.Health, gate: newWireGate(),
		topics:   topics{template: cfg.Topic, state: cfg.StateTopic, byName: map[string]*topic{}},
		builder:  builder{source: []byte(cfg.Source), interned: map[string]string{}},
		order:    ordering{refused: cfg.Refused, stuck: cfg.Stuck, room: cfg.Room},
		resolver: resolver{log: cfg.Log, create: cfg.CreateTopics, maxRequest: cfg.MaxRequest},
		failed:   make(chan struct{}),
		causes:   NoErrors(),
	}
	s.builder.sink, s.promise = s, s.done
	if cfg.Before != nil {
		s.inherit(cfg.Before)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if cfg.Exactly != nil {
		s.how = newTransactions(s, *cfg.Exactly)
	} else {
		s.how = atLeastOnce{s, cfg.Store}
	}
	if cfg.NewClient == nil {
		cfg.NewClient = newClient
	}
	client, err := cfg.NewClient(s.options()...)
	if err != nil {
		return nil, fmt.Errorf("create Kafka producer: %w", err)
	}
	s.client, s.resolver.client = client, client
	return s, nil
}

// Begin fences the former producer of the source; only then is the stored position final. The
// caller holds the slot.
func (s *Sink) Begin(ctx context.Context) error { return s.how.begin(ctx) }

// Start says where the stream begins, before the first Produce, and how a position is stored.
func (s *Sink) Start(pos checkpoint.Position, state Encode) {
	s.order.start(pos)
	s.how.start(pos, state)
}

// Reached says how far the stream is after something that is no event. After a permanent error it
// does nothing: an event before that may never have been sent, and its position must not be passed.
func (s *Sink) Reached(pos checkpoint.Position) {
	if s.Err() == nil {
		s.how.reached(pos)
	}
}

// Save stores a position up to which everything is published. With exactly once it may be stored
// already.
func (s *Sink) Save(ctx context.Context, state checkpoint.State) error { return s.how.save(ctx, state) }

// Produce sends an event; pos is how far the stream is with it. mark is told once, when the event
// is published. An error is an [*EventError] and permanent: nothing more will be sent.
func (s *Sink) Produce(e *decoder.Event, txn Transaction, mark Mark, pos checkpoint.Position) error {
	if err := s.Err(); err != nil {
		return err
	}
	t, err := s.topics.of(e)
	if err != nil {
		return s.refuse(e, txn, reasonIllegalTopic, err)
	}
	f, err := s.builder.build(e, txn, t, mark)
	if err != nil {
		return s.refuse(e, txn, reasonBadHeaders, err)
	}
	s.inFlight.add()
	t.inFlight.add()
	s.bytes.Add(f.size)
	s.order.admit(f)
	if f.barrier == untilSent || f.barrier == untilPublished { // both may take long
		s.preparing.Go(func() { s.prepareAndSend(f, pos) })
		return nil
	}
	s.how.send(f, pos)
	return nil
}

// prepareAndSend sends an event once its topic is known, once its events may go to partitions that
// were added, and, if it has to be in a batch of its own, once nothing else is in flight. The
// producer is held meanwhile.
func (s *Sink) prepareAndSend(f *flight, pos checkpoint.Position) {
	prepare := s.resolver.resolve
	if f.topic.grown() {
		prepare = s.spread
	}
	if err := prepare(s.ctx, f.topic); err != nil {
		if s.ctx.Err() == nil {
			s.deny(f, err)
		}
		return
	}
	if f.barrier == untilSent && f.large() { // the limit is known only now
		f.barrier = untilConfirmed
	}
	barrier := f.barrier
	// The client sets the time: the event may have waited for days, and retention counts from it.
	f.record.Timestamp = time.Time{}
	s.how.send(f, pos)
	s.order.passed(barrier, untilSent)
}

// done is the promise of every record.
func (s *Sink) done(f *flight, err error) {
	if err != nil {
		if !closing(err) && s.ctx.Err() == nil {
			s.fail(f, err)
		}
		return
	}
	barrier := f.barrier
	s.how.confirmed(f) // its memory may be in use again from here on
	s.order.passed(barrier, untilConfirmed)
}

// published counts an event as published, tells its mark, and frees it.
func (s *Sink) published(f *flight) {
	now := s.health.answer()
	at := moment(now)
	f.topic.published.Add(1)
	f.topic.inFlight.remove(at)
	if s.cfg.Observe != nil {
		s.cfg.Observe(time.Duration(now.UnixMicro()-epochMicros-f.time) * time.Microsecond)
	}
	s.inFlight.remove(at)
	s.bytes.Add(-f.size)
	f.mark.Done()
	barrier := f.barrier
	f.free()
	s.order.passed(barrier, untilPublished)
}

// epochMicros is 2000-01-01, the zero of Postgres' clock, in Unix time.
const epochMicros = 946684800 * 1000000

// InFlight reports whether events are in flight.
func (s *Sink) InFlight() bool { return s.inFlight.events.Load() > 0 }

// Watch says whether events have been waiting for longer than usual. While they do, Stats tells
// which partition they wait for.
func (s *Sink) Watch(waiting bool) { s.trouble.watch(waiting) }

// Held reports whether the caller has to wait before the next Produce.
func (s *Sink) Held() bool { return s.order.held.Load() && s.Err() == nil }

// FindTopics asks for topics of which nothing was confirmed for long, and creates missing ones, if
// that may be.
func (s *Sink) FindTopics(ctx context.Context) {
	there := s.resolver.find(ctx, s.topics.stalled())
	if there && !s.order.held.Load() { // else missing may be about the topic that is being resolved
		s.resolver.clear()
	}
}
