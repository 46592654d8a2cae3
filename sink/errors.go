package sink

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// EventError says that an event cannot be published: it breaks the contract, or the brokers refuse it for good, or an
// outage ended its producer.
type EventError struct {
	EventID string
	Commit  uint64 // LSN of its transaction's commit record
	Index   uint32 // of the row change in its transaction
	Topic   string
	Reason  string // short and constant: a metric's label
	Hint    string // what helps, if the brokers refused it
	Outage  bool   // nobody refused the event: another Sink may publish it
	Err     error
}

func (e *EventError) Error() string {
	return fmt.Sprintf("publish event %q of the transaction at %X/%X (row %d) to topic %q: %v",
		e.EventID, e.Commit>>32, uint32(e.Commit), e.Index, e.Topic, e.Err)
}

func (e *EventError) Unwrap() error { return e.Err }

// classify names a permanent error and says what helps.
func classify(topic string, err error) (reason, hint string) {
	switch {
	case outage(err):
		return "outage", ""
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return "too_large", fmt.Sprintf("raise max.message.bytes of topic %q above the size of this event, then start walpost again: "+
			"it reads the topic's limit at its start (right DescribeConfigs; without it, it assumes Kafka's default of 1 MiB)", topic)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return "not_authorized", fmt.Sprintf("grant WRITE and DESCRIBE on topic %q, or create it: with ACLs, brokers answer the same for a topic that is missing", topic)
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return "not_authorized", "grant IDEMPOTENT_WRITE on the cluster (needed by brokers older than 2.8)"
	case errors.Is(err, kerr.InvalidTopicException):
		return "illegal_topic", "the topic's name comes from the event and the topic template"
	case errors.Is(err, kerr.InvalidRecord), errors.Is(err, kerr.PolicyViolation), errors.Is(err, kerr.InvalidTimestamp), errors.Is(err, kerr.UnsupportedForMessageFormat):
		return "refused", fmt.Sprintf("look into the broker's log and the settings of topic %q for why it refuses this record", topic)
	case errors.Is(err, kerr.OutOfOrderSequenceNumber), errors.Is(err, kerr.UnknownProducerID):
		return "data_loss", fmt.Sprintf("the brokers lost records of topic %q that they had confirmed (an unclean leader election?), or forgot this producer; "+
			"a start of walpost goes on from the stored position", topic)
	default:
		return "other", "look into the broker's log; a start of walpost goes on from the stored position"
	}
}

// outage reports whether err, with which the client gave up a record, is no word of the brokers on the record itself: the
// client ends some records for errors that it cannot place, and for a password that is being changed.
func outage(err error) bool {
	var refused *kerr.Error
	return !errors.As(err, &refused) || refused.Retriable || refused == kerr.SaslAuthenticationFailed
}

// closing reports whether err says only that the client was closed.
func closing(err error) bool { return errors.Is(err, kgo.ErrClientClosed) }
