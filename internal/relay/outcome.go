package relay

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
	"github.com/walpost/walpost/sink"
)

// class is what an error means to the relay.
type class int

// The classes of errors. What is not known to be anything else is permanent.
const (
	permanent class = iota // nobody knows that it goes away by itself
	none                   // no error
	outage                 // Postgres or Kafka cannot be reached or does not serve: wait
	stale                  // what an inspection found no longer holds: inspect again
	slotHeld               // another process reads the slot: wait
	fenced                 // another producer has the transactional id, or the brokers dropped ours
	suspect                // an event was refused, perhaps for the sake of another in its batch
	refused                // one event or row cannot be published
	misfit                 // the settings do not fit a table
	doubt                  // rows may be missing in the stream
	gap                    // the stored position is not one that this server can continue from
	unstored               // the state topic cannot be used
	settings               // a setting cannot work
	halted                 // a [*Halt] already
)

// ofRow reports whether a row of the stream ended the session, or would have with the next of its
// kind. Whoever acts on it relies on everything before that row.
func (c class) ofRow() bool { return c == suspect || c == refused || c == misfit }

// passes reports whether the reason goes away by itself, so that another session should be tried.
func (c class) passes() bool {
	return c == outage || c == stale || c == slotHeld || c == fenced
}

// failure is an error with its class, and with what the error knows of the cause.
type failure struct {
	class class
	err   error

	event    *sink.EventError  // with which a sink failed; nil = with none
	row      *decoder.Error    // that cannot be decoded; nil = there is none
	commit   *sink.CommitError // nil = no Kafka transaction failed
	atKafka  bool              // the brokers may explain it
	canceled bool              // the relay was told to stop meanwhile

	hint string // what the error itself says must be done; empty = nothing
	gap  bool   // the stream lacks events, or the brokers lost some
}

// kafkaError is an error of the state topic, or of taking over from another producer.
type kafkaError struct{ err error }

func (e *kafkaError) Error() string { return e.err.Error() }
func (e *kafkaError) Unwrap() error { return e.err }

// classify is the one place that says what an error means. The order matters where one error wraps
// another.
func classify(err error) failure {
	f := failure{err: err, canceled: errors.Is(err, context.Canceled)}
	var (
		halt     *Halt
		unfit    *unfitError
		stop     *cdc.StopError
		unusable *cdc.SettingsError
		behind   *checkpoint.GapError
		restored *checkpoint.RestoredError
		kafka    *kafkaError
	)
	switch {
	case err == nil:
		f.class = none
	case errors.As(err, &halt):
		f.class = halted
	case errors.As(err, &unfit):
		f.class, f.hint = misfit, unfit.stop.Hint
	case errors.As(err, &stop):
		f.class, f.hint, f.gap = doubt, stop.Hint, stop.Gap
	case errors.As(err, &unusable) && !cdc.Transient(err):
		f.class, f.hint = settings, unusable.Hint
	case errors.As(err, &behind):
		f.class, f.hint, f.gap = gap, behind.Hint(), true
	case errors.As(err, &restored):
		f.class, f.hint, f.gap = gap, restored.Hint(), true
	case errors.As(err, &f.commit):
		f.class, f.atKafka = ofCommit(f.commit), !f.commit.Fenced
	case errors.As(err, &f.event): // before the state topic: the keeper may be the first to tell of it
		f.class, f.atKafka, f.hint, f.gap = ofEvent(f.event), true, f.event.Hint, f.event.Lost()
	case errors.As(err, &f.row):
		f.class = refused
	case errors.As(err, &kafka):
		f.class, f.atKafka = ofStateTopic(err), true
	case errors.Is(err, errStale):
		f.class = stale
	case errors.Is(err, cdc.ErrSlotInUse):
		f.class = slotHeld
	case f.canceled, errors.Is(err, context.DeadlineExceeded), cdc.Transient(err):
		f.class = outage
	}
	f.atKafka = f.atKafka && f.class == outage && !f.canceled
	return f
}

func ofCommit(e *sink.CommitError) class {
	switch {
	case e.Fenced:
		return fenced
	case e.Refused:
		return unstored
	default:
		return outage // the state topic tells what became of it
	}
}

func ofEvent(e *sink.EventError) class {
	switch {
	case e.Outage:
		return outage
	case e.Suspect():
		return suspect
	default:
		return refused
	}
}

// ofStateTopic classifies what the brokers answer to whoever reads or writes the state topic, or
// fences a producer.
func ofStateTopic(err error) class {
	var (
		topic  *checkpoint.TopicError
		record *checkpoint.RecordError
		answer *kerr.Error
	)
	switch {
	case errors.As(err, &topic), errors.As(err, &record):
		return unstored
	case sink.Outage(err):
		return outage
	}
	errors.As(err, &answer) // there is one, or it were an outage
	switch answer {
	case kerr.UnknownTopicOrPartition,
		kerr.InvalidReplicationFactor,                  // fewer brokers are up than a new topic needs
		kerr.ConcurrentTransactions,                    // the transaction of a fenced producer is being aborted
		kerr.ProducerFenced, kerr.InvalidProducerEpoch: // two relays at one moment: the slot decides
		return outage
	}
	return unstored
}

// outcome is how a session ended.
type outcome struct {
	failure
	stopped    bool // the relay was told to stop
	superseded bool // fenced, and another relay has the slot
	long       bool // it did not end at once: its failure is no repetition of the one before
}
