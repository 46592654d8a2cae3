package sink

import (
	"sync/atomic"

	"github.com/walpost/walpost/checkpoint"
)

// barrier says how long nothing may be produced behind an event.
type barrier uint8

const (
	noBarrier      barrier = iota
	untilSent              // its topic is new, or has new partitions: they are prepared first
	untilConfirmed         // it is so large that the brokers may refuse it
	untilPublished         // it is in a batch, or in a Kafka transaction, of its own
)

// ordering decides which events may be in flight together.
//
// The goroutine that produces has each event admitted before it hands it on. If the event has a
// barrier, it produces nothing while held is set. The goroutine that prepares the topic, the
// promise of the record and the end of its transaction say what the event has passed; the one that
// the barrier waits for ends held, and wakes the producer through room. After a permanent error
// none does.
type ordering struct {
	// Of the goroutine that produces.
	refused  *EventError // see Handover
	suspects int         // events behind refused that were sent in batches of their own
	stuck    *EventError // see Handover; nil from start on if it is published
	probes   int         // events from stuck on

	held atomic.Bool
	room chan<- struct{}
}

// maxSuspects is how many events may have been in a batch that was refused.
const maxSuspects = 10_000

// start forgets the stuck event if it is published at the position where the stream begins.
func (o *ordering) start(pos checkpoint.Position) {
	if e := o.stuck; e != nil && pos.Published(checkpoint.LSN(e.Commit), e.Index) {
		o.stuck = nil
	}
}

// admit gives the next event its barrier, and holds the producer if there is one.
func (o *ordering) admit(f *flight) {
	suspect, probe := o.suspect(f), o.probe(f)
	switch {
	case suspect || probe:
		f.barrier = untilPublished
	case !f.topic.ready():
		f.barrier = untilSent
	case f.large():
		f.barrier = untilConfirmed
	default:
		return
	}
	o.held.Store(true)
}

// suspect reports whether an event may be the cause for which the brokers have refused a batch.
func (o *ordering) suspect(f *flight) bool {
	if o.refused == nil || o.suspects == maxSuspects || f.before(o.refused) {
		return false
	}
	o.suspects++
	return true
}

// probe reports whether an event is sent in a batch of its own to find out whether the partitions
// take events again: the stuck one, and from it on the 2nd, the 4th, the 8th and so on. So whatever
// fails next, no more is repeated than what has been published since.
func (o *ordering) probe(f *flight) bool {
	if o.stuck == nil || f.before(o.stuck) {
		return false
	}
	o.probes++
	return o.probes&(o.probes-1) == 0
}

// passed says how far an event with a barrier is. Others may follow if it was for that.
func (o *ordering) passed(b, now barrier) {
	if b == now {
		o.held.Store(false)
		o.wake()
	}
}

// wake has the goroutine that produces ask again whether it may.
func (o *ordering) wake() {
	select {
	case o.room <- struct{}{}:
	default:
	}
}
