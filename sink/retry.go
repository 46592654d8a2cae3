package sink

import "github.com/twmb/franz-go/pkg/kerr"

// The client sends a batch again, in its place and with its sequence number, if the brokers' answer
// is one that Kafka calls retriable: nothing else waits for it, and nothing is repeated.
// UNKNOWN_SERVER_ERROR is not, and neither is a code that the client does not know, which it takes
// for that one. It would fail all of that partition, and another client would have to begin at the
// oldest event that waits, again and again. Yet such an answer says nothing of the event, and the
// sequence number keeps a batch from being appended twice. So it is made retriable before there is
// any client.
//
// The other requests stay safe. The client ends a transaction only once, whatever the answer.
// Refused a producer ID, it asks again at once: clientLog makes it wait.
func init() { kerr.UnknownServerError.Retriable = true }
