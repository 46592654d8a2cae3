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
	// ID is the transactional id: one per source, so that the next relay of the source fences this
	// one.
	ID string
	// Guarantee is told the transaction guarantee: whether the brokers' transactions are strong
	// enough for exactly once. Nil = nobody asks.
	Guarantee func(strong bool)
	// Interval is how long a transaction may stay open, Bytes how much it may hold.
	Interval time.Duration
	Bytes    int64
}

// transactionTimeout is how long the brokers let a transaction stay open. One that was left open by
// a kill hides what others commit to the state topic behind it for that long.
const transactionTimeout = 15 * time.Second

// CommitError says that a transaction was not committed, or perhaps was: only the state topic can
// tell.
type CommitError struct {
	Fenced  bool // another producer has taken over the source, or the brokers gave this one up
	Refused bool // the brokers refuse the position for good
	Slow    bool // it holds more than can be sent in time
	Err     error
	// Waiting is the first event of a slow transaction that the brokers have not confirmed. Nil =
	// they have all of it.
	Waiting *EventError
}

func (e *CommitError) Error() string {
	if e.Fenced {
		return fmt.Sprintf("this producer was fenced: %v", e.Err)
	}
	return fmt.Sprintf("commit a Kafka transaction: %v", e.Err)
}

func (e *CommitError) Unwrap() error { return e.Err }

// errEventFailed says that an event of the transaction failed. The error of the sink says why.
var errEventFailed = errors.New("an event of the transaction failed")

// fencing reports whether err says that another producer has the transactional id.
func fencing(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)
}

// transactions publishes events and the position behind them in one Kafka transaction, so that
// either all of it is there or nothing. An event counts as published, and its mark is told, when
// its transaction is committed. After the first error nothing more is committed: the next producer
// fences this one and reads the state topic, which is the truth.
//
// There are two goroutines. The producer sends events into the open transaction; when that is full,
// it closes it at a cut and leaves later events in waiting. The committer (run) decides when a
// transaction is due, cuts it if the producer has not, stores the position of the cut in it,
// commits it, opens the next one with what waits, and tells the marks of what was committed.
type transactions struct {
	s     *Sink
	cfg   Exactly
	state Encode

	// The producer takes mu once an event, the committer a few times a transaction. All of this is
	// under mu, so that a cut is exactly behind the last event of its transaction.
	mu      sync.Mutex
	at      checkpoint.Position // how far the stream is
	open    bool                // the transaction takes events
	batch   []*flight           // of the open transaction, or of the one that is being committed
	bytes   int64               // of batch
	limit   int64               // of bytes
	cut     checkpoint.Position // where the transaction ends, once it is not open any more
	waiting []*flight           // for the next one
	spare   []*flight           // the memory of the batch before

	// Also under mu: what others wait for. They set saving or flushing, wake the committer, and
	// wait for done, which is told when something was committed and when nothing more will be.
	saving    bool // a position is to be stored, even without an event before it
	flushing  bool // what was sent is to be committed at once
	marking   bool // marks of what was committed are being told
	committed checkpoint.Position
	done      *sync.Cond
	wake      chan struct{} // the committer has something to do
	ended     chan struct{} // closed when it ends; nil before start

	// Of the committer: the producer ID and epoch of the open transaction, and the time of the last
	// commit.
	id    int64
	epoch int16
	took  time.Duration

	// An event that fails ends doomed, once the sink has its error: its transaction must not be
	// committed.
	doomed context.Context
	doom   context.CancelFunc
}

func newTransactions(s *Sink, cfg Exactly) *transactions {
	t := &transactions{s: s, cfg: cfg, limit: cfg.Bytes, wake: make(chan struct{}, 1)}
	if first := s.cfg.First; first > 0 {
		t.limit = min(first, cfg.Bytes)
	}
	t.done = sync.NewCond(&t.mu)
	t.doomed, t.doom = context.WithCancel(s.ctx)
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

// offer gives an event to the client if the open transaction takes it. It is called with mu held.
func (t *transactions) offer(f *flight) bool {
	if n := len(t.batch); f.alone() && t.open && n > 0 {
		t.cutAt(t.batch[n-1].pos)
	}
	if !t.open {
		return false
	}
	t.batch = append(t.batch, f)
	t.bytes += f.size
	t.s.client.Produce(t.s.ctx, &f.record, f.promise)
	switch {
	case f.alone() || t.bytes >= t.limit:
		t.cutAt(f.pos)
	case len(t.batch) == 1:
		t.wakeCommitter()
	}
	return true
}

// cutAt ends the open transaction: later events belong to the next one. It is called with mu held.
func (t *transactions) cutAt(pos checkpoint.Position) {
	t.open, t.cut = false, pos
	t.wakeCommitter()
}

func (t *transactions) confirmed(f *flight) { f.written.Store(true) }

func (t *transactions) failed() { t.doom() }

func (t *transactions) reached(pos checkpoint.Position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at = pos
	if t.saving { // save may have been called with pos before this
		t.wakeCommitter()
	}
}

func (t *transactions) wakeCommitter() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// begin fences the former producer of the transactional id. Its open transaction is aborted before
// begin returns.
func (t *transactions) begin(ctx context.Context) error {
	if err := t.beginTransaction(ctx); err != nil {
		return fmt.Errorf("fence transactional id %q: %w", t.cfg.ID, err)
	}
	if t.cfg.Guarantee == nil {
		return nil
	}
	strong, err := strongTransactions(ctx, t.s.client)
	if err != nil {
		return err
	}
	t.cfg.Guarantee(strong)
	return nil
}

// beginTransaction begins a Kafka transaction. A new client has to ask for its producer ID first:
// only then does it know which protocol of transactions the brokers have.
func (t *transactions) beginTransaction(ctx context.Context) (err error) {
	if t.id, t.epoch, err = t.s.client.ProducerID(ctx); err != nil {
		return err
	}
	return t.s.client.BeginTransaction()
}

func (t *transactions) start(pos checkpoint.Position, state Encode) {
	t.state, t.at, t.committed, t.open = state, pos, pos, true
	t.ended = make(chan struct{})
	go t.run()
}

// unwritten returns the first event of the transaction that the brokers do not have; nil = they
// have all of it.
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

// reopen opens the next transaction and sends what waits for it. It returns what was published.
func (t *transactions) reopen(cut checkpoint.Position, took time.Duration) (published []*flight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bytes >= t.limit && took < transactionTimeout/4 {
		t.limit = min(2*t.limit, t.cfg.Bytes)
	}
	published, t.took = t.batch, took
	t.committed, t.marking, t.saving = cut, true, false
	t.open, t.bytes, t.batch = true, 0, t.spare
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
	t.flushing = t.flushing && len(t.batch) > 0
	return published
}

// save returns once a position that is at least as far as the one of state is in the state topic.
func (t *transactions) save(ctx context.Context, state checkpoint.State) error {
	return t.await(ctx, func() bool { return !t.committed.Before(state.Position) }, &t.saving)
}

func (t *transactions) flush(ctx context.Context) error {
	return t.await(ctx, func() bool { return len(t.batch)+len(t.waiting) == 0 && !t.marking }, &t.flushing)
}

// await waits for a condition, and sets want again after each commit that does not meet it.
func (t *transactions) await(ctx context.Context, met func() bool, want *bool) error {
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
		*want = true
		t.wakeCommitter()
		t.done.Wait()
	}
	return nil
}

func (t *transactions) close() {
	t.doom()
	if t.ended != nil {
		<-t.ended
	}
}

// strongTransactions reports whether the brokers tie each record to its transaction (KIP-890,
// transaction.version 2). Before that, a delayed request could become part of a later transaction.
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
