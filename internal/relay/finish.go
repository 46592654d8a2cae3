package relay

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/walpost/walpost/cdc"
)

// ending is one of the few ways in which a session ends. They differ in how long it waits for what
// is in flight.
type ending int

const (
	// atStop: somebody told the relay to stop. What is in flight gets DrainTimeout; the next start
	// sends the rest again.
	atStop ending = iota
	// inOutage: another session goes on from here, so what is in flight is waited for as long as it
	// takes, or until a stop.
	inOutage
	// atRow: a row cannot be published. The operator's next step may be to skip it, which skips
	// everything before it too, or to give settings that are wrong for what is before it. So all of
	// that is published first, however long it takes, or until a stop.
	atRow
	// atFault: anything else. What is in flight gets DrainTimeout. If rows may be missing, nothing
	// more is confirmed to Postgres.
	atFault
)

func endingOf(stopped bool, c class) ending {
	switch {
	case stopped:
		return atStop
	case c.passes():
		return inOutage
	case c.ofRow():
		return atRow
	default:
		return atFault
	}
}

// finish ends a session. This is the order of every shutdown: nothing more is received; what is in
// flight is confirmed by the brokers; the position is stored; it is confirmed to Postgres; the
// stream is closed. While it waits, status goes out as long as the stream lives.
func (s *session) finish(ctx context.Context, cause error) error {
	why := classify(cause)
	how := endingOf(ctx.Err() != nil, why.class)
	switch how {
	case atStop:
		s.r.setState(Draining, "draining")
	case inOutage:
		s.r.report(cause, why.class, s.said)
	default:
		s.r.setState(Draining, cause.Error())
	}
	// Asked now, before the slot is free for a standby.
	s.heldSlot = why.class == fenced && !s.heldByAnother(ctx)
	s.watermark.Suspend()

	patient := how == inOutage || how == atRow
	began := time.Now()
	drain, cancel := s.r.drainContext(ctx, patient)
	defer cancel()
	if s.stream.Gone() || patient {
		s.close() // a wait for Kafka without end must not hold the server: it may want to shut down
	}
	var flushed error
	s.await(drain, func() { flushed = s.flush(drain) })
	late, waited := drain.Err() != nil, time.Since(began).Round(time.Millisecond)

	// A stop has what is left of its time.
	s.await(drain, func() { s.storeLast(drain, why.class != doubt) })
	s.close()

	ended := classify(flushed)
	switch {
	case ctx.Err() != nil && (late || ended.class.passes()):
		return &Halt{Err: fmt.Errorf("%w: events in flight after %s, which are sent again after the next start: %d",
			ErrDrain, waited, s.out.Stats().Events)}
	case ended.class == none && how == atStop && why.class.passes():
		return nil
	case ended.class != none && (why.class.passes() || why.class.ofRow()):
		return flushed // what was in flight comes before the row that ended the session
	default:
		return cause
	}
}

// superseded reports whether another relay has the slot from which this one was fenced. Fenced
// alone may mean that the brokers gave up a transaction that took too long.
func (s *session) superseded(ctx context.Context, err error) bool {
	return ctx.Err() == nil && classify(err).class == fenced && !s.heldSlot && s.heldByAnother(ctx)
}

// heldByAnother reports whether another process reads the slot. A copy of the slot on a standby
// says nothing.
func (s *session) heldByAnother(ctx context.Context) bool {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), inspectTimeout)
	defer cancel()
	view, err := cdc.Inspect(limited, s.r.cfg.CDC)
	if err != nil || view.CheckServer(s.system, s.history.Current()) != nil {
		return false
	}
	return view.Slot != nil && view.Slot.Active && view.Slot.ActivePID != int(s.stream.PID())
}

// flush waits for what is in flight, and goes on to store how far that is: the wait may be cut
// short.
func (s *session) flush(ctx context.Context) error {
	keeping, stop := context.WithCancel(ctx)
	var keeper sync.WaitGroup
	keeper.Go(func() {
		// What it could not store, storeLast tries again.
		_ = s.keep(keeping)
	})
	defer keeper.Wait()
	defer stop()
	return s.out.Flush(ctx)
}

// await runs f and keeps the stream alive meanwhile.
func (s *session) await(ctx context.Context, f func()) {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	if !s.closed && !s.stream.Gone() {
		// Whatever it returns: what counts now is that f ends.
		_ = s.stream.Wait(ctx, done)
	}
	<-done
}

// close ends the stream once.
func (s *session) close() {
	if s.closed {
		return
	}
	s.closed = true
	if s.stream.Gone() {
		s.stream.Close()
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := s.stream.Stop(ctx); err != nil {
		s.log.Debug().Err(err).Msg("the stream did not end in order; the stored position counts")
	}
}
