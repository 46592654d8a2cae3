package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/sink"
)

// handover is what one session leaves to the next. A session takes it, works on its own copy, and
// returns that with its outcome; decide adds what follows from the outcome.
//
// While a session streams, pending belongs to whoever stores positions: the keeper, and finish
// after it. Everything else belongs to the goroutine that calls Run.
type handover struct {
	// The source: the cluster that the first session found, which every later one must find again,
	// and its stored position.
	system string
	store  Store

	// Where to go on. This process may know a position that is further than the stored one: the
	// last write may have failed.
	last    checkpoint.State // where the last session ended; zero = there was none
	reached checkpoint.State // how far events of that session may be published
	pending *pendingRepeats  // nil = a start now would send nothing again

	// How to go on.
	out       *sink.Sink    // the last one, open or closed; nil = there was none
	sink      sink.Handover // for the next one
	text      bool          // ask for columns in text form: a binary one could not be decoded
	walsender int           // the process of Postgres that served the last stream; 0 = none
	pause     time.Duration // the last one between two sessions; it doubles from failure to failure

	said *said
}

// said is what the log has told already. Sessions share it, so that none tells it again.
type said struct {
	outage    sink.Notice     // why there is no session
	warnings  map[string]bool // that an inspection found
	guarantee *bool           // whether the brokers' transactions allow exactly once; nil = not said
	explained string          // what the brokers answered when they were asked about an outage
}

func newHandover() handover { return handover{said: &said{warnings: map[string]bool{}}} }

// closeAll closes what sessions share.
func (h *handover) closeAll() {
	if h.out != nil {
		h.out.Close()
	}
	if h.store != nil {
		h.store.Close()
	}
}

// pendingRepeats are events that are published behind the stored position: a start would send them
// again.
type pendingRepeats struct {
	why   error
	until checkpoint.State // how far they may go: once as much is stored, there are none
}

// mayRepeat notes that events up to a position may be published, and that it is not stored.
func (h *handover) mayRepeat(why error, until checkpoint.State) {
	if h.pending != nil && until.Before(h.pending.until) {
		until = h.pending.until
	}
	h.pending = &pendingRepeats{why, until}
}

// noteStored notes that a position is stored.
func (h *handover) noteStored(state checkpoint.State) {
	if h.pending != nil && !state.Before(h.pending.until) {
		h.pending = nil
	}
}

// repeats reports, when the relay stops, whether a start would send events again. Another relay may
// have stored as much.
func (h *handover) repeats(ctx context.Context) bool {
	if h.pending == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastRead)
	defer cancel()
	if state, stored, err := h.store.LoadCommitted(ctx); err == nil && stored {
		h.noteStored(state)
	}
	return h.pending != nil
}

// lastRead bounds the read of the stored position when the relay stops.
const lastRead = time.Second

// release closes a sink that cannot go on: an error has ended it, or the next session fences it.
// What became of its events is in the state topic, or they are sent again.
func (h *handover) release(exactlyOnce bool) {
	if h.out == nil {
		return
	}
	failed := h.out.Err() != nil
	if n := h.out.Stats().Events; failed && n > 0 && !exactlyOnce && !h.out.Closed() {
		h.mayRepeat(fmt.Errorf("events in flight (%d) were given up when the producer failed, "+
			"and others behind them may be published", n), h.reached)
	}
	if exactlyOnce || failed {
		h.out.Close()
	}
}
