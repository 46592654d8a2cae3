package sink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/checkpoint"
)

// run is the committer: it commits one transaction after the other, until an error or the end of
// the sink.
func (t *transactions) run() {
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		close(t.ended)
		t.done.Broadcast()
	}()
	for t.awaitDue() {
		if err := t.commit(); err != nil {
			if t.s.ctx.Err() == nil && !errors.Is(err, errEventFailed) {
				_ = t.s.latch(reasonOutage, err) // Failed and Err tell
			}
			return
		}
	}
}

// smallTransaction is the size in bytes up to which a transaction is committed early, for the sake
// of latency. At a rate beyond that commits would take their time from events.
const smallTransaction = 512 << 10

// awaitDue waits until the open transaction should be committed: it is full, or open for the
// interval, or nothing has followed for the linger, or somebody waits for it. While it is small the
// interval is at most twice the time that the last commit took, so that a single event is committed
// at once. False means that nothing more may be committed.
func (t *transactions) awaitDue() bool {
	ticker := time.NewTicker(max(t.s.cfg.Linger, time.Millisecond))
	defer ticker.Stop()
	began, last := time.Now(), 0
	for {
		t.mu.Lock()
		n := len(t.batch)
		due := !t.open || t.saving && t.committed.Before(t.at) || t.flushing && n > 0
		interval := t.cfg.Interval
		if t.took > 0 && t.bytes < smallTransaction {
			interval = min(interval, 2*t.took)
		}
		t.mu.Unlock()
		if due || n > 0 && (n == last || time.Since(began) >= interval) {
			return t.doomed.Err() == nil
		}
		var tick <-chan time.Time
		if n > 0 {
			tick = ticker.C
		}
		select {
		case <-t.wake:
		case <-tick:
			last = n
		case <-t.doomed.Done():
			return false
		}
	}
}

// commit commits what is before the cut, with the position of the cut. If the producer has not cut
// the transaction, it ends where the stream is now.
func (t *transactions) commit() error {
	t.mu.Lock()
	if t.open {
		t.open, t.cut = false, t.at
	}
	cut := t.cut
	t.mu.Unlock()
	began := time.Now()
	if err := t.end(cut); err != nil {
		return err
	}
	published := t.reopen(cut, time.Since(began))
	for _, f := range published {
		t.s.published(f)
	}
	clear(published)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spare, t.marking = published[:0], false
	t.done.Broadcast()
	return nil
}

// end writes the position and commits. After an error nobody knows whether the transaction is
// committed, so nobody may try again.
func (t *transactions) end(cut checkpoint.Position) error {
	if err := t.complete(cut); err != nil {
		return err
	}
	// For some answers of the brokers the client takes a new epoch, which aborts what was sent
	// before it, and goes on as if nothing had happened. What is left of the transaction must not
	// be committed.
	id, epoch, err := t.s.client.ProducerID(t.doomed)
	if err == nil && (id != t.id || epoch != t.epoch) {
		err = errors.New("the client has taken another epoch inside the transaction")
	}
	if err == nil {
		err = t.s.client.EndTransaction(t.doomed, kgo.TryCommit)
	}
	if err == nil {
		err = t.beginTransaction(t.doomed)
	}
	if err != nil {
		return &CommitError{Err: err, Fenced: fencing(err)}
	}
	return nil
}

// complete sends the position and returns when the brokers have all of the transaction.
func (t *transactions) complete(cut checkpoint.Position) error {
	value, err := t.state(cut)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(t.doomed)
	defer cancel(nil)
	record := &kgo.Record{Topic: t.s.cfg.StateTopic, Key: []byte(t.s.cfg.Source), Value: value}
	t.s.client.Produce(t.s.ctx, record, func(_ *kgo.Record, err error) {
		if err != nil { // the gate may have shut: nobody must wait for what it keeps back
			t.s.gate.close()
			cancel(t.refusedPosition(err))
		}
	})
	go t.limitTime(ctx, cancel)
	flushed := t.s.client.Flush(ctx)
	var refused *CommitError
	switch {
	case errors.As(context.Cause(ctx), &refused):
		// The position may have been refused because of an event beside it, whose promise is still
		// to come: that is the one to name. An error that the sink has from before may be of an
		// event that was never in the transaction.
		select {
		case <-t.doomed.Done():
			return errEventFailed
		case <-time.After(afterFailure / 2): // before Flush gives up
			return refused
		}
	case t.doomed.Err() != nil:
		return errEventFailed
	case flushed != nil:
		return t.slow()
	}
	return nil
}

// limitTime cancels a transaction that takes too long. The brokers abort it then, and the client
// may not learn of it, but send it from its beginning again and again. While no broker answers, it
// waits.
func (t *transactions) limitTime(ctx context.Context, cancel context.CancelCauseFunc) {
	for began := time.Now(); sleep(ctx, time.Second) == nil; {
		if up, _, _ := t.s.health.State(); up && time.Since(began) > transactionTimeout {
			cancel(nil)
		}
	}
}

// slow is the error of a transaction that took too long.
func (t *transactions) slow() error {
	err := fmt.Errorf("it was not sent within %s, and the brokers give it up", transactionTimeout)
	if reason := t.s.trouble.reason(); reason != "" {
		err = fmt.Errorf("%w: %s", err, reason)
	}
	return &CommitError{Err: err, Slow: true, Waiting: t.unwritten()}
}

// refusedPosition is the error of the record that holds the position.
func (t *transactions) refusedPosition(err error) error {
	return &CommitError{
		Err:    fmt.Errorf("write to state topic %q: %w", t.s.cfg.StateTopic, err),
		Fenced: fencing(err), Refused: !fencing(err) && !Outage(err) && !transactional(err) && !closing(err),
	}
}
