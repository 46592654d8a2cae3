package sink

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/decoder"
)

// refuseCreation answers every request to create a topic with this.
func (f *fixture) refuseCreation(code int16, says string) {
	f.cluster.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
		for _, asked := range req.(*kmsg.CreateTopicsRequest).Topics {
			topic := kmsg.NewCreateTopicsResponseTopic()
			topic.Topic, topic.ErrorCode, topic.ErrorMessage = asked.Topic, code, kmsg.StringPtr(says)
			resp.Topics = append(resp.Topics, topic)
		}
		return resp, nil, true
	})
}

// TestCreationRefused: the brokers say why they do not create a topic, and the relay passes it on
// with what helps.
func TestCreationRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		code         int16
		says         string
		reason, hint string
	}{
		"a collision": {
			kerr.InvalidTopicException.Code, "Topic 'order_paid' collides with existing topics: order.paid",
			reasonIllegalTopic, "a dot and an underscore",
		},
		"a policy": {
			kerr.PolicyViolation.Code, "topics begin with the name of a team",
			reasonRefused, `create topic "order_paid" by hand`,
		},
		"without right": {
			kerr.TopicAuthorizationFailed.Code, "Authorization failed.",
			reasonNotAuthorized, `grant CREATE on topic "order_paid"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, nil)
			f.refuseCreation(c.code, c.says)
			_ = f.produce("order_paid", "k", "1", 1)
			var event *EventError
			if err := f.sink.Err(); !errors.As(err, &event) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("the sink ended with %v, want what the brokers say: %q", err, c.says)
			}
			if event.Reason != c.reason || !strings.Contains(event.Hint, c.hint) || event.Sent {
				t.Errorf("reason %q, sent %t, hint %q", event.Reason, event.Sent, event.Hint)
			}
		})
	}
}

// TestCreatedTopicAppearsLater: the brokers deny a topic for some moments after they made it. That
// is not worth a line of the log, unless it lasts.
func TestCreatedTopicAppearsLater(t *testing.T) {
	t.Parallel()
	for lasting, want := range map[time.Duration]int{100 * time.Millisecond: 0, 4 * time.Second: 1} {
		var log lockedBuffer
		f := setup(t, func(c *Config) { c.Log = zerolog.New(&log).Level(zerolog.WarnLevel) })
		began := time.Now()
		f.cluster.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
			f.cluster.KeepControl()
			if len(req.(*kmsg.MetadataRequest).Topics) != 1 || time.Since(began) > lasting {
				return nil, nil, false
			}
			return denyTopics(req, kerr.UnknownTopicOrPartition.Code), nil, true
		})
		f.mustProduce("orders", "k", "1", 1)
		if got := strings.Count(log.String(), "do not offer it"); got != want {
			t.Errorf("denied for %s, and %d lines in the log:\n%s", lasting, got, log.String())
		}
	}
}

// TestCreationWaits: too few brokers are up for a new topic, or a quota is used up. That passes;
// until then it is said.
func TestCreationWaits(t *testing.T) {
	t.Parallel()
	f := setup(t, nil)
	says := "Unable to replicate the partition 3 time(s)"
	f.refuseCreation(kerr.InvalidReplicationFactor.Code, says)
	e := &decoder.Event{ID: []byte("1"), Key: []byte("k"), AggregateType: []byte("orders")}
	if err := f.sink.Produce(e, Transaction{Timeline: 1, Commit: 1}, &mark{}, f.position(1)); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(f.sink.Stats().Reason, says) {
		select {
		case <-t.Context().Done():
			t.Fatalf("events wait, because %q", f.sink.Stats().Reason)
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := f.sink.Err(); err != nil {
		t.Errorf("it did not wait: %v", err)
	}
}
