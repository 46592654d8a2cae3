package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/sink"
)

// ErrDrain says that a stop did not wait for everything in flight.
var ErrDrain = errors.New("the drain took too long")

// Halt is why a Relay stopped although nobody told it to: an operator must act.
type Halt struct {
	Err  error
	Hint string // the command or SQL that helps
	Gap  bool   // the stream lacks events, or the brokers lost some: find what is missing
}

func (h *Halt) Error() string { return h.Err.Error() }
func (h *Halt) Unwrap() error { return h.Err }

// halt is how the relay stops although nobody told it to. The hint says how to go on. system is the
// cluster of the source.
func (r *Relay) halt(f failure, system string) *Halt {
	h := &Halt{Err: f.err, Hint: f.hint, Gap: f.gap}
	switch f.class {
	case halted:
		errors.As(f.err, &h)
	case refused, suspect:
		h.Hint = r.refusedHint(f)
	case unstored:
		h.Hint = r.stateTopicHint(f.err, system)
	}
	if h.Hint == "" {
		h.Hint = "look for this error in the logs of Postgres and of the brokers. Once its cause is mended, start walpost: " +
			"it goes on from the stored position"
	}
	return h
}

// refusedHint says how an event can be published after all, or else be skipped.
func (r *Relay) refusedHint(f failure) string {
	switch {
	case f.row != nil:
		return r.columnHint(f.row)
	case f.hint == "":
		return r.skipHint(f.event.Commit)
	case errors.Is(f.err, kerr.InvalidTopicException):
		return f.hint + ". If the event itself is wrong: " + r.skipHint(f.event.Commit)
	default:
		return f.hint
	}
}

// stateTopicHint says how the position can be read or written again.
func (r *Relay) stateTopicHint(err error, system string) string {
	var topic *checkpoint.TopicError
	var record *checkpoint.RecordError
	var create *checkpoint.CreateError
	created := errors.As(err, &create)
	forbidden := errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed)
	switch {
	case errors.As(err, &topic):
		return "name another topic in WALPOST_STATE_TOPIC, or delete this one if nothing else uses it. " + adoptsSlot
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return fmt.Sprintf("grant WRITE and DESCRIBE on transactional id %q; then start walpost", TransactionalID(r.source(system)))
	case errors.Is(err, kerr.InvalidTimestamp):
		return sink.ClockHint(r.cfg.StateTopic)
	case errors.As(err, &record):
		return "if a newer walpost wrote the record, start that one. Else name another topic in WALPOST_STATE_TOPIC. " + adoptsSlot
	case created && errors.Is(err, kerr.InvalidTopicException):
		return "name another topic in WALPOST_STATE_TOPIC: to Kafka a dot and an underscore in the name of a topic are the same, " +
			"so of two names that differ in nothing else only one can exist"
	case created && !forbidden:
		return fmt.Sprintf("create topic %q as the rules of the cluster want it, with one partition and cleanup.policy=compact "+
			"(segment.bytes as low as they allow); then start walpost", r.cfg.StateTopic)
	case !forbidden:
		return "look for this refusal in the log of the brokers, and at the settings of Kafka. Once it is mended, start walpost: " +
			"it goes on from the stored position"
	default:
		return fmt.Sprintf("grant READ, WRITE and DESCRIBE on topic %q, and CREATE if it is missing; or create it with one partition, "+
			"cleanup.policy=compact and segment.bytes=1048576. Then start walpost", r.cfg.StateTopic)
	}
}

const adoptsSlot = "A start without a stored position adopts that of the slot"

// skipHint says how to leave out a transaction with a row that can never be published.
func (r *Relay) skipHint(commit uint64) string {
	if commit == 0 {
		return "A start of walpost reads the same bytes again."
	}
	return fmt.Sprintf("A row in the WAL cannot be changed. To skip its whole transaction (docs/OPERATIONS.md#a-row-that-can-never-be-published): "+
		"start walpost until it stops here again, which it does once everything before the row is published; copy what the transaction "+
		"inserted behind this row; SELECT pg_replication_slot_advance('%s', '%s'); walpost init --accept-gap; insert the copy, corrected, again",
		r.cfg.CDC.Slot, cdc.LSN(commit+1))
}

// drainContext ends the given time after ctx has ended. Unless wait is set, it ends that time from
// now in any case.
func (r *Relay) drainContext(ctx context.Context, wait bool) (context.Context, context.CancelFunc) {
	drain, cancel := context.WithCancel(context.WithoutCancel(ctx))
	if !wait {
		limited, cancelTimer := context.WithTimeout(drain, r.cfg.DrainTimeout)
		return limited, func() { cancelTimer(); cancel() }
	}
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(r.cfg.DrainTimeout)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-drain.Done():
		}
	})
	return drain, func() { stop(); cancel() }
}
