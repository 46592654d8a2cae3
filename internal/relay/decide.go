package relay

import (
	"errors"
	"fmt"
	"time"

	"github.com/walpost/walpost/cdc"
)

// What the relay does after a session.
type action int

const (
	tryAgain action = iota // after a pause: begin another session
	stop                   // everything is published and stored, or known to be pending
	halt                   // an operator must act
)

// step is what comes next, and why.
type step struct {
	action action
	err    error         // why another session is tried, or the [*Halt]; nil with stop
	pause  time.Duration // before it is tried, without jitter
}

// errSuspect says that the brokers refused an event, and others with it. The next session publishes
// what comes before it, and then one event at a time: so the refused event is found, and everything
// before it is published when the relay halts. The operator's next step may be to skip it, which
// skips everything before it too.
var errSuspect = errors.New("the brokers refused an event: what was in flight with it is sent again, " +
	"and from that event on each one by itself")

// smallestBatch is the least that a Kafka transaction may hold, in bytes.
const smallestBatch = 64 << 10

// decide says what comes after a session, and with what. It asks nobody and changes nothing.
func (r *Relay) decide(h handover, o outcome) (handover, step) {
	switch {
	case o.class == none, o.stopped && (o.canceled || o.class.passes()):
		return h, step{action: stop}
	case o.stopped && o.class == suspect: // no other session will find the event that is refused
		return h, step{action: halt, err: &Halt{Err: o.err, Hint: "start walpost: it sends again what was in " +
			"flight, and stops at the refused event once everything before it is published"}}
	case o.superseded:
		return h, step{action: halt, err: r.halt(classify(&cdc.StopError{
			What: fmt.Sprintf("another relay has taken over slot %q and fenced this one", r.cfg.CDC.Slot),
			Hint: "nothing, if that was meant: two relays on one slot take turns, and one that was paused " +
				"past its turn stops. Once started again, it waits for the slot",
			Err: o.err,
		}), h.system)}
	case o.class == suspect:
		h.sink.Refused = o.event
		o.err = errSuspect
	case !o.class.passes():
		return h, step{action: halt, err: r.halt(o.failure, h.system)}
	case o.event != nil:
		h.sink.Stuck = o.event
	case o.commit != nil && o.commit.Slow:
		h.sink.First = r.smaller(h.sink.First)
		if o.commit.Waiting != nil {
			h.sink.Stuck = o.commit.Waiting
		}
	}
	if o.long {
		h.pause = 0
	}
	if o.class == stale { // the slot is free, only what we knew was old
		return h, step{tryAgain, o.err, 0}
	}
	longest := longPause
	if o.class == slotHeld {
		longest = slotPause
	}
	h.pause = min(max(h.pause*2, firstPause), longest)
	return h, step{tryAgain, o.err, h.pause}
}

const (
	firstPause = 100 * time.Millisecond
	// longPause is also how long a session lasts whose failure is no repetition of the one before.
	longPause = 5 * time.Second
	// slotPause is the longest pause between two attempts to take a slot that another relay holds.
	slotPause = 2 * time.Second
)

// smaller is what the first Kafka transaction of the next session may hold, in bytes: a quarter of
// what took too long.
func (r *Relay) smaller(before int64) int64 {
	if before == 0 {
		before = r.batch()
	}
	return max(before/4, smallestBatch)
}
