package sink

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/checkpoint"
)

// Reasons why an event cannot be published: the labels of a metric, so each is short and constant.
const (
	reasonTooLarge      = "too_large"
	reasonNotAuthorized = "not_authorized"
	reasonIllegalTopic  = "illegal_topic"
	reasonBadHeaders    = "bad_headers"
	reasonRefused       = "refused"
	reasonDataLoss      = "data_loss"
	reasonOutage        = "outage" // the only one that does not stop the relay
	reasonOther         = "other"
)

// NoErrors counts each reason there is as 0: an increase from a series that is not there yet is
// none to Prometheus.
func NoErrors() map[string]uint64 {
	return map[string]uint64{
		reasonTooLarge: 0, reasonNotAuthorized: 0, reasonIllegalTopic: 0, reasonBadHeaders: 0,
		reasonRefused: 0, reasonDataLoss: 0, reasonOutage: 0, reasonOther: 0,
	}
}

// EventError says that an event cannot be published: it breaks the contract, or the brokers refuse
// it for good, or an outage ended its producer.
type EventError struct {
	EventID   string
	Commit    uint64 // LSN of its transaction's commit record
	Index     uint32 // of the row change in its transaction
	Topic     string
	Partition int32  // of the record that was sent; -1 = the client has not chosen one
	Reason    string // one of those that NoErrors lists
	Hint      string // what helps, if the brokers refused it
	Sent      bool   // it was handed to the client
	Alone     bool   // it was in a batch of its own: the brokers refuse this event and no other
	Outage    bool   // nobody refused the event: another Sink may publish it
	Err       error
}

func (e *EventError) Error() string {
	partition := ""
	if e.Sent && e.Partition >= 0 {
		partition = fmt.Sprintf(", partition %d", e.Partition)
	}
	return fmt.Sprintf("publish event %q of the transaction at %X/%X (row %d) to topic %q%s: %v",
		e.EventID, e.Commit>>32, uint32(e.Commit), e.Index, e.Topic, partition, e.Err)
}

func (e *EventError) Unwrap() error { return e.Err }

// Suspect reports whether the brokers may have refused the event for the sake of another in flight
// with it. A loss of records that the brokers had confirmed is no such refusal: another attempt
// would hide it.
func (e *EventError) Suspect() bool {
	return e.Sent && !e.Outage && !e.Alone && !e.Lost()
}

// Lost reports whether the brokers have lost records that they had confirmed.
func (e *EventError) Lost() bool { return e.Reason == reasonDataLoss }

// Before reports whether the event comes before another one in the stream.
func (e *EventError) Before(other *EventError) bool {
	return e.Commit < other.Commit || e.Commit == other.Commit && e.Index < other.Index
}

// earlier reports whether err is of an event before the one that other names, or of the transaction
// before an event that was never in flight.
func earlier(err, other error) bool {
	var event, before *EventError
	if !errors.As(other, &before) {
		return false
	}
	var commit *CommitError
	if errors.As(err, &commit) {
		return !before.Sent
	}
	return errors.As(err, &event) && event.Before(before)
}

// classify names a permanent error and says what helps.
func classify(topic string, err error, exactly bool) (reason, hint string) {
	var refused *checkpoint.CreateError
	switch {
	case Outage(err), exactly && transactional(err):
		return reasonOutage, ""
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return reasonTooLarge, fmt.Sprintf("raise max.message.bytes of topic %q above the size of this event, then start walpost: it reads "+
			"the limit at its start (right DescribeConfigs; without it, it assumes Kafka's default of 1 MiB). An event of more than 100 MiB "+
			"also needs a larger socket.request.max.bytes at the brokers, and WALPOST_KAFKA_MAX_REQUEST_BYTES with it", topic)
	case errors.As(err, &refused):
		return createHint(refused)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return reasonNotAuthorized, fmt.Sprintf("grant WRITE and DESCRIBE on topic %q, or create it: with ACLs, brokers answer the same "+
			"for a missing topic", topic)
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		return reasonNotAuthorized, "grant WRITE and DESCRIBE on the transactional id of this relay: walpost/ and the source that `walpost status` shows"
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return reasonNotAuthorized, "grant IDEMPOTENT_WRITE on the cluster (needed by brokers older than 2.8)"
	case errors.Is(err, kerr.InvalidTopicException):
		return reasonIllegalTopic, "the topic's name comes from the event and the topic template"
	case errors.Is(err, kerr.InvalidTimestamp):
		return reasonRefused, ClockHint(topic)
	case errors.Is(err, kerr.InvalidRecord), errors.Is(err, kerr.PolicyViolation), errors.Is(err, kerr.UnsupportedForMessageFormat):
		return reasonRefused, fmt.Sprintf("the log of the broker and the settings of topic %q say why it refuses this record", topic)
	case errors.Is(err, kerr.OutOfOrderSequenceNumber), errors.Is(err, kerr.UnknownProducerID):
		return reasonDataLoss, fmt.Sprintf("the brokers lost records of topic %q that they had confirmed (an unclean leader election?), or forgot this producer; "+
			"a start of walpost goes on from the stored position", topic)
	default:
		return reasonOther, "the log of the broker says why; a start of walpost goes on from the stored position"
	}
}

// createHint says what helps where the brokers refuse to create a topic that an event names.
func createHint(refused *checkpoint.CreateError) (reason, hint string) {
	switch {
	case errors.Is(refused, kerr.InvalidTopicException):
		return reasonIllegalTopic, fmt.Sprintf("to Kafka a dot and an underscore in the name of a topic are the same, so of two names that "+
			"differ in nothing else only one can exist. Delete the other topic if it is not needed any more, or give topic %q another name "+
			"with WALPOST_TOPIC. Then start walpost: it goes on with this event", refused.Topic)
	case errors.Is(refused, kerr.TopicAuthorizationFailed):
		return reasonNotAuthorized, fmt.Sprintf("grant CREATE on topic %q, or create it, and grant WRITE and DESCRIBE on it. Then start walpost: "+
			"it goes on with this event", refused.Topic)
	default:
		return reasonRefused, fmt.Sprintf("create topic %q by hand, as the rules of the cluster want it. Then start walpost: "+
			"it goes on with this event", refused.Topic)
	}
}

// ClockHint says what helps where the brokers refuse the time of a record.
func ClockHint(topic string) string {
	return fmt.Sprintf("a record carries the time at which it is sent. The clock of this machine, which says %s, and that of the brokers "+
		"differ by more than topic %q allows (message.timestamp.after.max.ms, by default an hour, and message.timestamp.before.max.ms). "+
		"Set them right, then start walpost: it goes on from here",
		time.Now().UTC().Format(time.RFC3339), topic)
}

// Outage reports whether err says nothing about what the brokers were asked for: they are away, or
// a password is being changed, or the client gave up for an error that it cannot classify.
func Outage(err error) bool {
	var refused *kerr.Error
	if !errors.As(err, &refused) || refused.Retriable {
		return true
	}
	switch refused {
	case kerr.SaslAuthenticationFailed, kerr.IllegalSaslState, kerr.UnsupportedSaslMechanism, kerr.UnknownServerError:
		return true
	}
	return false
}

// transactional reports whether err is about the transaction and not about the record: it is
// aborted, and what was in it is sent again in another.
func transactional(err error) bool {
	for _, of := range []error{
		kerr.TransactionAbortable, kerr.InvalidTxnState, kerr.InvalidProducerIDMapping, kerr.OperationNotAttempted,
		kerr.OutOfOrderSequenceNumber, kerr.UnknownProducerID, kerr.TransactionCoordinatorFenced,
	} {
		if errors.Is(err, of) {
			return true
		}
	}
	return false
}

// closing reports whether err says only that the client was closed.
func closing(err error) bool { return errors.Is(err, kgo.ErrClientClosed) }
