package sink

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/checkpoint"
)

// run commits, one transaction after the other, until an error or the end of the sink.
func (t *transactions) run() {
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		close(t.ended)
		t.done.Broadcast()
	}()
	for t.awaitDue() {
		if err := t.commit(); err != nil {
			if t.s.ctx.Err() == nil && !errors.Is(err, errLost) {
				_ = t.s.latch(reasonOutage, err) // whoever waits learns of it from Failed and Err
			}
			return
		}
	}
}

// prompt is how much may come into a transaction, in bytes, for it to be committed as soon as it pays, and not as late as it may be:
// at a rate beyond that commits would take their time from events.
const prompt = 512 << 10

// awaitDue waits until the open transaction should be committed: it is large, or the last commit is long ago, or nothing has followed for
// as long as a record may wait for company, or somebody waits for it. While little comes, long ago is twice the time that it
// took, so an event that comes alone is committed at once. False means that no more will be.
func (t *transactions) awaitDue() bool {
	ticker := time.NewTicker(max(t.s.cfg.Linger, time.Millisecond))
	defer ticker.Stop()
	began, last := time.Now(), 0
	for {
		t.mu.Lock()
		n := len(t.batch)
		due := !t.open || t.saving && t.committed.Before(t.at) || t.hurry && n > 0
		long := t.cfg.Interval
		if t.took > 0 && t.bytes < prompt {
			long = min(long, 2*t.took)
		}
		t.mu.Unlock()
		if due || n > 0 && (n == last || time.Since(began) >= long) {
			return t.broken.Err() == nil
		}
		var tick <-chan time.Time
		if n > 0 {
			tick = ticker.C
		}
		select {
		case <-t.wake:
		case <-tick:
			last = n
		case <-t.broken.Done():
			return false
		}
	}
}

// commit commits what is before the cut with its position. If the bytes have not cut the stream, it is cut where it is now.
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
	t.spare, t.settling = published[:0], false
	t.done.Broadcast()
	return nil
}

// end writes the position and commits. After an error the outcome is unknown; nobody may try again.
func (t *transactions) end(cut checkpoint.Position) error {
	value, err := t.state(cut)
	if err != nil {
		return err
	}
	record := &kgo.Record{Topic: t.s.cfg.StateTopic, Key: []byte(t.s.cfg.Source), Value: value}
	stored := make(chan error, 1)
	t.s.client.Produce(t.s.ctx, record, func(_ *kgo.Record, err error) {
		stored <- err
		if err != nil { // the gate may have shut: nobody shall wait for what it keeps back
			t.s.gate.close()
			t.breakUp()
		}
	})
	flushed := t.flushInTime()
	select {
	case err := <-stored:
		if err != nil {
			// The position may have been refused for the sake of an event beside it, whose promise is still to come: that is the
			// one to name. An error that the sink has from before may be of an event that was never in the transaction.
			select {
			case <-t.event.Done():
				return errLost
			case <-time.After(afterFailure / 2): // before Flush gives up
			}
			return t.refusedPosition(err)
		}
	default:
	}
	if t.broken.Err() != nil {
		return errLost
	}
	if flushed != nil {
		slow := &CommitError{Err: flushed, Slow: errors.Is(flushed, errSlow)}
		if slow.Slow {
			slow.Waiting = t.unwritten()
			if reason := t.s.trouble.reason(); reason != "" {
				slow.Err = fmt.Errorf("%w: %s", flushed, reason)
			}
		}
		return slow
	}
	if err := t.checkEpoch(); err != nil {
		return err
	}
	if err := t.s.client.EndTransaction(t.broken, kgo.TryCommit); err != nil {
		return &CommitError{Err: err, Fenced: fencing(err)}
	}
	if err := t.s.client.BeginTransaction(); err != nil {
		return &CommitError{Err: err, Fenced: fencing(err)}
	}
	if t.id, t.epoch, err = t.s.client.ProducerID(t.broken); err != nil {
		return &CommitError{Err: err, Fenced: fencing(err)}
	}
	return nil
}

// refusedPosition is the failure of the record that holds the position.
func (t *transactions) refusedPosition(err error) error {
	return &CommitError{
		Err:    fmt.Errorf("write to state topic %q: %w", t.s.cfg.StateTopic, err),
		Fenced: fencing(err), Refused: !fencing(err) && !Outage(err) && !transactional(err) && !closing(err),
	}
}

// checkEpoch makes sure that the transaction that is about to be committed is the one that was begun: for some answers of the
// brokers the client takes a new epoch, which aborts what was sent before it, and goes on as if nothing had happened.
func (t *transactions) checkEpoch() error {
	id, epoch, err := t.s.client.ProducerID(t.broken)
	if err != nil {
		return &CommitError{Err: err, Fenced: fencing(err)}
	}
	if id != t.id || epoch != t.epoch {
		return &CommitError{Err: errors.New("the client has taken another epoch inside the transaction")}
	}
	return nil
}
