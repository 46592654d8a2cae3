package sink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/checkpoint"
)

// Exactly says how to publish each event once. A nil Exactly means at least once.
type Exactly struct {
	// ID is the transactional id: one per source, so that who takes a source over fences whoever had it.
	ID string
	// Claim is told whether the brokers' transactions are strong enough for the claim of exactly once. Nil = nobody asks.
	Claim func(strong bool)
	// Interval is how long a transaction may stay open, Bytes how much it may hold.
	Interval time.Duration
	Bytes    int64
}

// transactionTimeout is how long the brokers let a transaction stay open. One that was left open by a kill hides what others
// commit to the state topic behind it for that long.
const transactionTimeout = 15 * time.Second

// CommitError says that a transaction was not committed, or perhaps was: only the state topic can tell.
type CommitError struct {
	Fenced  bool // another producer has taken over the source, or the brokers gave this one up
	Refused bool // the brokers refuse the position for good
	Slow    bool // it holds more than can be sent in time
	Err     error
	// Waiting is the first event of a slow transaction that the brokers have not confirmed. Nil = they have all of it.
	Waiting *EventError
}

func (e *CommitError) Error() string {
	if e.Fenced {
		return fmt.Sprintf("this producer was fenced: %v", e.Err)
	}
	return fmt.Sprintf("commit a Kafka transaction: %v", e.Err)
}

func (e *CommitError) Unwrap() error { return e.Err }

// errLost says that an event of the transaction failed. What it failed of is the error of the sink.
var errLost = errors.New("an event of the transaction failed")

// fencing reports whether err says that another producer has the transactional id.
func fencing(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)
}

// transactions publishes events and the position behind them in one Kafka transaction, so that either all of it is there
// or nothing. While one is being committed, the events of the next wait; the goroutine that reads goes on.
//
// An event counts as published, and its mark is told, when its transaction is committed. After the first error nothing
// more is committed: whoever comes next fences this producer and reads the state topic, which is the truth.
type transactions struct {
	s     *Sink
	cfg   Exactly
	state Encode

	mu      sync.Mutex    // taken once an event by the goroutine that reads, and a few times a transaction by commit's
	open    bool          // the client takes records
	batch   []*flight     // of the open transaction, or of the one that is being committed
	bytes   int64         // of batch
	took    time.Duration // of the last commit
	limit   int64         // of bytes
	waiting []*flight     // for the next one
	spare   []*flight     // the slice of the batch before
	at      checkpoint.Position
	cut     checkpoint.Position // where the transaction that is not open any more ends
	saving  bool                // a position is to be stored, even without an event before it
	hurry   bool                // somebody waits for what was sent

	id    int64 // of the producer, in the open transaction
	epoch int16

	committed checkpoint.Position // in the state topic
	settling  bool                // marks of what was committed are being told
	done      *sync.Cond          // something was committed, or nothing more will be

	wake    chan struct{}   // the goroutine of commits has something to look at
	ended   chan struct{}   // it has ended; nil before start
	broken  context.Context // ended by a record that failed: its transaction must not be committed
	breakUp context.CancelFunc
	event   context.Context // ended by an event of the transaction that failed, and with the sink
	lose    context.CancelFunc
}

func newTransactions(s *Sink, cfg Exactly) *transactions {
	t := &transactions{s: s, cfg: cfg, limit: cfg.Bytes, wake: make(chan struct{}, 1)}
	if first := s.cfg.First; first > 0 {
		t.limit = min(first, cfg.Bytes)
	}
	t.done = sync.NewCond(&t.mu)
	t.broken, t.breakUp = context.WithCancel(s.ctx)
	t.event, t.lose = context.WithCancel(s.ctx)
	return t
}

func (t *transactions) send(f *flight, pos checkpoint.Position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at, f.pos = pos, pos
	if len(t.waiting) > 0 || !t.offer(f) {
		t.waiting = append(t.waiting, f)
	}
}

// offer gives an event to the client if the open transaction takes it. It is called with the mutex held.
func (t *transactions) offer(f *flight) bool {
	if n := len(t.batch); f.alone() && t.open && n > 0 {
		t.shut(t.batch[n-1].pos)
	}
	if !t.open {
		return false
	}
	t.batch = append(t.batch, f)
	t.bytes += f.size
	t.s.client.Produce(t.s.ctx, &f.record, f.promise)
	switch {
	case f.alone() || t.bytes >= t.limit:
		t.shut(f.pos)
	case len(t.batch) == 1:
		t.poke()
	}
	return true
}

// shut cuts the stream: what comes later belongs to the next transaction. It is called with the mutex held.
func (t *transactions) shut(cut checkpoint.Position) {
	t.open, t.cut = false, cut
	t.poke()
}

func (t *transactions) confirmed(f *flight) { f.written.Store(true) }

func (t *transactions) failed() {
	t.lose()
	t.breakUp()
}

func (t *transactions) reached(pos checkpoint.Position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at = pos
	if t.saving { // whoever keeps the position may have heard of it first
		t.poke()
	}
}

func (t *transactions) poke() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// begin fences whoever had the transactional id. An open transaction of theirs is aborted before it returns.
func (t *transactions) begin(ctx context.Context) error {
	if _, _, err := t.s.client.ProducerID(ctx); err != nil {
		return fmt.Errorf("take over transactional id %q: %w", t.cfg.ID, err)
	}
	if err := t.s.client.BeginTransaction(); err != nil {
		return fmt.Errorf("begin a Kafka transaction: %w", err)
	}
	var err error
	if t.id, t.epoch, err = t.s.client.ProducerID(ctx); err != nil {
		return fmt.Errorf("take over transactional id %q: %w", t.cfg.ID, err)
	}
	if t.cfg.Claim == nil {
		return nil
	}
	strong, err := strongTransactions(ctx, t.s.client)
	if err != nil {
		return err
	}
	t.cfg.Claim(strong)
	return nil
}

func (t *transactions) start(pos checkpoint.Position, state Encode) {
	t.state, t.at, t.committed, t.open = state, pos, pos, true
	t.ended = make(chan struct{})
	go t.run()
}

// unwritten is the first event of the transaction that the brokers do not have; nil = they have all of it.
func (t *transactions) unwritten() *EventError {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.batch {
		if !f.written.Load() {
			return f.event()
		}
	}
	return nil
}

// reopen lets the client have what came meanwhile. It returns what was published.
func (t *transactions) reopen(cut checkpoint.Position, took time.Duration) (published []*flight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bytes >= t.limit && took < transactionTimeout/4 {
		t.limit = min(2*t.limit, t.cfg.Bytes)
	}
	published, t.took = t.batch, took
	t.committed, t.settling, t.saving, t.open, t.bytes, t.batch = cut, true, false, true, 0, t.spare
	taken, now := 0, time.Now()
	for taken < len(t.waiting) {
		t.waiting[taken].record.Timestamp = now // it has waited
		if !t.offer(t.waiting[taken]) {
			break
		}
		taken++
	}
	left := copy(t.waiting, t.waiting[taken:])
	clear(t.waiting[left:])
	t.waiting = t.waiting[:left]
	t.hurry = t.hurry && len(t.batch) > 0
	return published
}

// save returns once a position that is at least as far as the one of state is in the state topic.
func (t *transactions) save(ctx context.Context, state checkpoint.State) error {
	return t.await(ctx, func() bool { return !t.committed.Before(state.Position) }, func() { t.saving = true })
}

func (t *transactions) flush(ctx context.Context) error {
	return t.await(ctx, func() bool { return len(t.batch)+len(t.waiting) == 0 && !t.settling }, func() { t.hurry = true })
}

// await waits for a condition and says again and again what is wanted, with the mutex held for both.
func (t *transactions) await(ctx context.Context, met func() bool, want func()) error {
	defer context.AfterFunc(ctx, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.done.Broadcast()
	})()
	t.mu.Lock()
	defer t.mu.Unlock()
	for !met() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.ended:
			if err := t.s.Err(); err != nil {
				return err
			}
			return kgo.ErrClientClosed
		default:
		}
		want()
		t.poke()
		t.done.Wait()
	}
	return nil
}

func (t *transactions) close() {
	t.breakUp()
	if t.ended != nil {
		<-t.ended
	}
}

// strongTransactions reports whether the brokers tie each record to its transaction (KIP-890, transaction.version 2). Before
// that, a request that was delayed on its way could become part of a later transaction.
func strongTransactions(ctx context.Context, client Client) (bool, error) {
	resp, err := kmsg.NewPtrApiVersionsRequest().RequestWith(ctx, client)
	if err != nil {
		return false, fmt.Errorf("ask for the features of the brokers: %w", err)
	}
	for _, f := range resp.FinalizedFeatures {
		if f.Name == "transaction.version" {
			return f.MaxVersionLevel >= 2, nil
		}
	}
	return false, nil
}
