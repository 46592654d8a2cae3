package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
	"github.com/walpost/walpost/sink"
)

// ErrDrain says that a stop did not wait for everything in flight.
var ErrDrain = errors.New("the drain took too long")

// Halt is why a Relay stopped although nobody told it to: an operator must act.
type Halt struct {
	Err  error
	Hint string // the command or SQL that helps
	Gap  bool   // the stream lacks events, or the brokers lost some: what is missing has to be looked for
}

func (h *Halt) Error() string { return h.Err.Error() }
func (h *Halt) Unwrap() error { return h.Err }

// kafkaError is an error of the state topic.
type kafkaError struct{ err error }

func (e *kafkaError) Error() string { return e.err.Error() }
func (e *kafkaError) Unwrap() error { return e.err }

// transient reports whether err is an outage to wait for. What is not known to be transient is permanent.
func transient(err error) bool {
	if inDoubt(err) {
		return false
	}
	var commit *sink.CommitError
	if errors.As(err, &commit) {
		return !commit.Refused // the state topic tells what became of it
	}
	var event *sink.EventError
	if errors.As(err, &event) {
		return event.Outage
	}
	var kafka *kafkaError
	if errors.As(err, &kafka) {
		var topic *checkpoint.TopicError
		var record *checkpoint.RecordError
		if errors.As(err, &topic) || errors.As(err, &record) {
			return false
		}
		var refused *kerr.Error
		return sink.Outage(err) || errors.As(err, &refused) && (refused == kerr.UnknownTopicOrPartition ||
			refused == kerr.InvalidReplicationFactor || // fewer brokers are up than a new topic needs
			refused == kerr.ConcurrentTransactions || // the transaction of whoever was fenced is being aborted
			refused == kerr.ProducerFenced || refused == kerr.InvalidProducerEpoch) // two relays at one moment: the slot decides
	}
	if errors.Is(err, errRefused) {
		return true
	}
	return errors.Is(err, errMoved) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || cdc.Transient(err)
}

// inDoubt reports whether a session ended because rows may be missing in the stream.
func inDoubt(err error) bool {
	var stop *cdc.StopError
	return errors.As(err, &stop)
}

// ofARow reports whether a row of the stream ended a session.
func ofARow(err error) bool {
	var bad *decoder.Error
	var event *sink.EventError
	return errors.As(err, &bad) || errors.As(err, &event)
}

// halt decides what becomes of an event that cannot be published and of every other permanent error: the relay stops.
// This is the one place for another policy. The hint says how to go on.
func (r *Relay) halt(err error) error {
	var already *Halt
	if errors.As(err, &already) {
		return err
	}
	h := &Halt{Err: err}
	var (
		stop     *cdc.StopError
		gap      *checkpoint.GapError
		restored *checkpoint.RestoredError
		bad      *decoder.Error
		event    *sink.EventError
		kafka    *kafkaError
		commit   *sink.CommitError
	)
	switch {
	case errors.As(err, &stop):
		h.Hint, h.Gap = stop.Hint, stop.Gap
	case errors.As(err, &gap):
		h.Hint, h.Gap = gap.Hint(), true
	case errors.As(err, &restored):
		h.Hint, h.Gap = restored.Hint(), true
	case errors.As(err, &bad) && slices.Contains(r.cfg.Topic.Extra(), bad.Column):
		h.Hint = fmt.Sprintf("WALPOST_TOPIC names column %q, which the table did not have when this row was inserted: name one that it had, "+
			"then start walpost; it goes on with this event", bad.Column)
	case errors.As(err, &bad):
		h.Hint = "if a column was renamed or got another type: map its present name with WALPOST_COLUMNS and start walpost; rows are read under the names " +
			"that they were inserted with, so if it is renamed back, start with the mapping until it stops again, and then without. If it is the row: " +
			r.passOver(bad.CommitLSN)
	case errors.As(err, &event): // before the state topic: the keeper may be the first to tell of an event
		h.Hint, h.Gap = event.Hint, event.Lost()
		switch {
		case h.Hint == "":
			h.Hint = r.passOver(event.Commit)
		case errors.Is(err, kerr.InvalidTopicException):
			h.Hint += ". If the event itself is wrong: " + r.passOver(event.Commit)
		}
	case errors.As(err, &kafka), errors.As(err, &commit):
		h.Hint = r.stateTopicHint(err)
	default:
		h.Hint = "look into the logs of Postgres and of the brokers for this error; a start goes on from the stored position once its cause is mended"
	}
	return h
}

// stateTopicHint says how the position can be read or written again.
func (r *Relay) stateTopicHint(err error) string {
	var topic *checkpoint.TopicError
	var record *checkpoint.RecordError
	var create *checkpoint.CreateError
	switch {
	case errors.As(err, &topic):
		return "name another topic in WALPOST_STATE_TOPIC, or delete this one if nothing else uses it; a start without a stored position adopts that of the slot"
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return fmt.Sprintf("grant WRITE and DESCRIBE on transactional id %q; then start walpost", TransactionalID(r.source()))
	case errors.Is(err, kerr.InvalidTimestamp):
		return sink.ClockHint(r.cfg.StateTopic)
	case errors.As(err, &record):
		return "if a newer walpost wrote the record, start that one; else name another topic in WALPOST_STATE_TOPIC: a start without a stored position adopts that of the slot"
	case errors.As(err, &create) && errors.Is(err, kerr.InvalidTopicException):
		return "name another topic in WALPOST_STATE_TOPIC: Kafka takes a dot and an underscore in the names of topics for the same, so of two names that differ in nothing else only one can exist"
	case errors.As(err, &create) && !errors.Is(err, kerr.TopicAuthorizationFailed) && !errors.Is(err, kerr.ClusterAuthorizationFailed):
		return fmt.Sprintf("create topic %q as the rules of the cluster want it, with one partition and cleanup.policy=compact (segment.bytes as low as they allow); then start walpost",
			r.cfg.StateTopic)
	case !errors.Is(err, kerr.TopicAuthorizationFailed) && !errors.Is(err, kerr.ClusterAuthorizationFailed):
		return "look into the log of the brokers for this refusal, and at the settings of Kafka; walpost goes on from the stored position once it is mended"
	default:
		return fmt.Sprintf("grant READ, WRITE and DESCRIBE on topic %q, and CREATE if it is missing, or create it with one partition, cleanup.policy=compact and segment.bytes=1048576; then start walpost",
			r.cfg.StateTopic)
	}
}

// passOver tells how to leave out a transaction whose row can never be published.
func (r *Relay) passOver(commit uint64) string {
	if commit == 0 {
		return "A start of walpost reads the same bytes again."
	}
	return fmt.Sprintf("A row in the WAL cannot be changed. To pass over its whole transaction: start walpost until it stops here again, which it does "+
		"once everything before it is published; copy what it inserted behind this row (docs/OPERATIONS.md has the query), then "+
		"SELECT pg_replication_slot_advance('%s', '%s'); walpost init --accept-gap; and insert the copy, corrected, again",
		r.cfg.CDC.Slot, cdc.LSN(commit+1))
}

// drainContext ends the given time after ctx has ended. Unless wait is set, it ends that time from now in any case.
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
