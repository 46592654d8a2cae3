package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/sink"
)

// errRefused says that the brokers refused an event, and others with it: once more up to it, and then one by one. Only so it is known
// which one is at fault, and that everything before it is published, which whoever passes over it relies on.
var errRefused = errors.New("the brokers refused an event: what was on its way with it is sent again, and from it on each event alone")

// smaller has the next session begin with smaller Kafka transactions.
func (r *Relay) smaller() {
	before := r.first
	if before == 0 {
		before = r.batch()
	}
	if r.first = max(before/4, smallestBatch); r.first < before {
		r.log.Warn().Int64("bytes", r.first).Msg("a Kafka transaction took too long: the next ones hold less")
	}
}

// smallestBatch is the least that a Kafka transaction may hold, in bytes.
const smallestBatch = 64 << 10

// verdict looks twice at how a session ended, where the end does not say it all.
func (r *Relay) verdict(ctx context.Context, s *session, err error) error {
	if err == nil {
		return err
	}
	var event *sink.EventError
	doubtful := errors.As(err, &event) && event.Doubtful()
	switch {
	case doubtful && ctx.Err() != nil: // a stop: there is no next session, and whoever passes over the event may pass over others
		return &Halt{Err: err, Hint: "start walpost: it sends again what was on its way, and stops at the event that is at fault once all before it is published"}
	case ctx.Err() != nil:
		return err
	case doubtful:
		r.refused = event
		return errRefused
	case event != nil && event.Outage:
		r.stuck = event
	}
	var commit *sink.CommitError
	if errors.As(err, &commit) && commit.Slow {
		r.smaller()
		if commit.Waiting != nil {
			r.stuck = commit.Waiting
		}
	}
	if fenced(err) && !s.rightful && r.superseded(ctx, s) {
		return &cdc.StopError{
			What: fmt.Sprintf("another relay has taken over slot %q and fenced this one", r.cfg.CDC.Slot),
			Hint: "nothing, if that was meant; two relays on one slot take turns, and one that was paused past its turn stops. A start makes it wait for the slot",
			Err:  err,
		}
	}
	return err
}

func fenced(err error) bool {
	var commit *sink.CommitError
	return errors.As(err, &commit) && commit.Fenced
}

// superseded reports whether another relay has the slot: fenced alone may mean that the brokers gave up a transaction that took
// too long.
func (r *Relay) superseded(ctx context.Context, s *session) bool {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	view, err := cdc.Inspect(limited, r.cfg.CDC)
	if err != nil || view.CheckServer(r.system, s.history.Current()) != nil { // a copy of the slot on a standby says nothing
		return false
	}
	return view.Slot != nil && view.Slot.Active && view.Slot.ActivePID != int(s.stream.PID())
}
