package sink

import (
	"context"
	"fmt"
	"math"
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
	// Refused is an event that the brokers refused, perhaps for the sake of another in the same batch. What is before it is
	// published first, and from it on each event is sent in a batch of its own, until one is refused. Nil = there is none.
	Refused *EventError
	// Stuck is the event with which the Sink before failed although nobody refused it. What is before it is published first, then
	// that event alone, and nothing behind it until it is: a Sink that fails again with it repeats nothing. Nil = there is none.
	Stuck *EventError
	// First is what the first Kafka transaction may hold, in bytes; each next one holds more while they do not take long.
	// 0 = as much as Exactly says.
	First int64
}

// Sink produces events. Produce and Held belong to one goroutine; all else may be called by any.
type Sink struct {
	cfg       Config
	log       zerolog.Logger
	client    Client
	gate      *gate
	trouble   trouble
	health    *Health
	builder   builder
	topics    topics
	byBytes   map[string]*topic // topics again, for the goroutine that produces
	name      []byte
	suspected int                  // events that were on their way alone
	probed    int                  // events from Stuck on
	promise   func(*flight, error) // of every record: done
	how       delivery

	events atomic.Int64
	moved  atomic.Int64 // the moment at which an event was confirmed last, or was the first in flight
	bytes  atomic.Int64
	held   atomic.Bool // a record waits for its topic, or might be too large: produce nothing behind it

	failed  chan struct{} // closed with the first permanent error
	missing atomic.Pointer[string]
	ctx     context.Context // of the resolver
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu     sync.Mutex
	err    error
	causes map[string]uint64 // permanent errors by reason
	said   string            // the missing topic that the log has named
	waits  Notice            // when it names one
}

// New returns a Sink. It connects with the first event.
func New(cfg Config) (*Sink, error) {
	dial := cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	s := &Sink{
		cfg: cfg, log: cfg.Log, health: cfg.Health, gate: newGate(),
		builder: builder{source: []byte(cfg.Source), interned: map[string]string{}},
		topics:  topics{names: map[string]*topic{}},
		byBytes: map[string]*topic{},
		failed:  make(chan struct{}),
		causes:  NoErrors(),
	}
	s.builder.sink, s.promise = s, s.done
	if cfg.Before != nil {
		s.inherit(cfg.Before)
	}
	if s.cfg.MaxRequest == 0 {
		s.cfg.MaxRequest = maxRequest
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	opts := append([]kgo.Opt(nil), cfg.Client...)
	if cfg.Exactly != nil {
		s.how = newTransactions(s, *cfg.Exactly)
		opts = append(opts, kgo.TransactionalID(cfg.Exactly.ID), kgo.TransactionTimeout(transactionTimeout))
	} else {
		s.how = atLeastOnce{s, cfg.Store}
	}
	newClient := newClient
	if cfg.NewClient != nil {
		newClient = cfg.NewClient
	}
	client, err := newClient(append(opts,
		kgo.Dialer(s.gate.dialer(dial)),
		kgo.WithLogger(&clientLog{s.gate, &s.trouble, cfg.Log}),
		kgo.WithHooks(cfg.Health),
		// An address that accepts and closes, as load balancers do without a backend, is an outage and no refusal.
		kgo.AlwaysRetryEOF(),
		// A batch that is to be sent again waits for fresh metadata: with the default of 5 s a moved leader costs that much.
		kgo.MetadataMinAge(metadataMinAge),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(partitioner{&s.topics}),
		kgo.ProducerLinger(cfg.Linger),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytesFn(s.topics.batchLimit),
		kgo.BrokerMaxWriteBytes(int32(s.cfg.MaxRequest)),
		// The bound is the watermark's: Produce must not block the goroutine that keeps the replication connection alive.
		kgo.MaxBufferedRecords(math.MaxInt32),
		// A topic that vanished is an outage to wait for.
		kgo.UnknownTopicRetries(-1),
		kgo.StopProducerOnDataLossDetected(),
	)...)
	if err != nil {
		return nil, fmt.Errorf("create Kafka producer: %w", err)
	}
	s.client = client
	return s, nil
}

// Begin takes over from whoever produced for the source before; only afterwards the stored position is final. The caller
// holds the slot.
func (s *Sink) Begin(ctx context.Context) error { return s.how.begin(ctx) }

// Start says where the stream begins, before the first Produce, and how a position is stored.
func (s *Sink) Start(pos checkpoint.Position, state Encode) {
	if e := s.cfg.Stuck; e != nil && pos.Published(checkpoint.LSN(e.Commit), e.Index) {
		s.cfg.Stuck = nil
	}
	s.how.start(pos, state)
}

// Reached says how far the stream is after something that is no event. After a permanent error it says nothing: an event before
// it may never have been sent, and its position must not be passed.
func (s *Sink) Reached(pos checkpoint.Position) {
	if s.Err() == nil {
		s.how.reached(pos)
	}
}

// Save stores a position up to which everything is published. With exactly once it may be stored already.
func (s *Sink) Save(ctx context.Context, state checkpoint.State) error { return s.how.save(ctx, state) }

// Produce sends an event on its way; pos is how far the stream is with it. mark is told once, when the event is published.
// An error is an [*EventError] and permanent: nothing more will be sent.
func (s *Sink) Produce(e *decoder.Event, txn Transaction, mark Mark, pos checkpoint.Position) error {
	if err := s.Err(); err != nil {
		return err
	}
	t, err := s.topic(e)
	if err != nil {
		return s.refuse(e, txn, reasonIllegalTopic, err)
	}
	f, err := s.builder.build(e, txn, t, mark)
	if err != nil {
		return s.refuse(e, txn, reasonBadHeaders, err)
	}
	if s.events.Add(1) == 1 {
		s.moved.Store(moment(time.Now()))
	}
	s.bytes.Add(f.size)
	suspect, probe := s.suspect(e, txn), s.probe(e, txn)
	f.alone = suspect || probe
	if t.inFlight.Add(1) == 1 {
		t.moved.Store(moment(time.Now()))
	}
	if !t.resolved.Load() || t.grown() || f.alone {
		s.held.Store(true)
		s.wg.Go(func() { s.prepareAndProduce(f, pos) })
		return nil
	}
	if f.large() { // the brokers may refuse it: see its fate before anything follows
		s.held.Store(true)
	}
	s.how.send(f, pos)
	return nil
}

// topic returns the topic of an event.
func (s *Sink) topic(e *decoder.Event) (*topic, error) {
	var err error
	if s.name, err = s.cfg.Topic.append(s.name[:0], e); err != nil {
		return nil, err
	}
	if t, ok := s.byBytes[string(s.name)]; ok {
		return t, nil
	}
	if err := checkTopic(string(s.name)); err != nil {
		return nil, err
	}
	if string(s.name) == s.cfg.StateTopic {
		return nil, fmt.Errorf("topic %q is walpost's own state topic", s.name)
	}
	t := s.topics.find(s.name)
	s.byBytes[t.name] = t
	return t, nil
}

// prepareAndProduce produces the first record of a topic once the topic is known, the first for partitions that were added to
// it once their events may go there, and one that has to be alone once it is. Nothing else is produced meanwhile.
func (s *Sink) prepareAndProduce(f *flight, pos checkpoint.Position) {
	if err := s.prepare(f.topic); err != nil {
		if s.ctx.Err() == nil {
			s.deny(f, err)
		}
		return
	}
	t, wait := f.topic, f.large() || f.alone
	f.record.Timestamp = time.Time{} // it may have waited for days, and retention counts from there: the client looks at the clock
	s.how.send(f, pos)
	// Only now may others follow it.
	t.resolved.Store(true)
	if !wait {
		s.release()
	}
}

func (s *Sink) prepare(t *topic) error {
	switch {
	case t.grown():
		return s.spread(t)
	case t.resolved.Load():
		return nil
	}
	return s.resolve(s.ctx, t)
}

// done is the promise of every record.
func (s *Sink) done(f *flight, err error) {
	if err != nil {
		if !closing(err) && s.ctx.Err() == nil {
			s.fail(f, err)
		}
		return
	}
	release := f.large() && !f.alone
	s.how.confirmed(f) // it may be used again from here on
	if release {
		s.release()
	}
}

// settle counts an event as published, and frees it.
func (s *Sink) settle(f *flight) {
	now := s.health.answer()
	at := moment(now)
	s.moved.Store(at)
	f.topic.moved.Store(at)
	f.topic.published.Add(1)
	f.topic.inFlight.Add(-1)
	if s.cfg.Observe != nil {
		s.cfg.Observe(time.Duration(now.UnixMicro()-epochMicros-f.time) * time.Microsecond)
	}
	s.events.Add(-1)
	s.bytes.Add(-f.size)
	f.mark.Done()
	alone := f.alone
	f.free()
	if alone {
		s.release()
	}
}

// metadataMinAge is the shortest time between two looks at the metadata.
const metadataMinAge = 250 * time.Millisecond

// epochMicros is 2000-01-01, the zero of Postgres' clock, in Unix time.
const epochMicros = 946684800 * 1000000

// InFlight reports whether events are in flight.
func (s *Sink) InFlight() bool { return s.events.Load() > 0 }

// Watch says whether events have been waiting for longer than usual. While they do, Stats tells which partition they wait for.
func (s *Sink) Watch(waiting bool) { s.trouble.watch(waiting) }

// Held reports whether the caller has to wait before the next Produce: the fate of a record must be known first.
func (s *Sink) Held() bool { return s.held.Load() && s.Err() == nil }

// release lets events follow the one that was held.
func (s *Sink) release() {
	s.held.Store(false)
	s.signal()
}

func (s *Sink) signal() {
	select {
	case s.cfg.Room <- struct{}{}:
	default:
	}
}
