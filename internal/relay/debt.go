package relay

import (
	"context"
	"time"

	"github.com/walpost/walpost/checkpoint"
)

// debt is what a start would send again: events that are published, and behind the stored position.
type debt struct {
	why   error
	until checkpoint.State // how far they may go: once as much is stored, there is none
}

// owe notes that events up to a position may be published that is not stored.
func (r *Relay) owe(why error, until checkpoint.State) {
	if r.debt != nil && until.Before(r.debt.until) {
		until = r.debt.until
	}
	r.debt = &debt{why, until}
}

// pay says that a position is stored. During a session this is of the goroutine that keeps the position.
func (r *Relay) pay(stored checkpoint.State) {
	if r.debt != nil && !stored.Before(r.debt.until) {
		r.debt = nil
	}
}

// owes reports at a stop whether a start would repeat events. Another relay may have stored as much meanwhile.
func (r *Relay) owes(ctx context.Context) bool {
	if r.debt == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLook)
	defer cancel()
	if state, stored, err := r.store.Glance(ctx); err == nil && stored {
		r.pay(state)
	}
	return r.debt != nil
}

// lastLook bounds the look at the stored position at a stop.
const lastLook = time.Second
