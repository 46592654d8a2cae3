package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/sink"
)

// sick is what a fake cluster of three brokers says of itself.
type sick struct {
	replicas, isr []int32           // of the state topic and of the transaction log
	leader        int32             // of both
	noLog         bool              // there is no transaction log
	settings      map[string]string // that may be read
	coordinator   int16             // the answer to FindCoordinator
	advertised    string            // address of broker 2; empty = its own
}

// cluster returns an inquiry at a fake cluster that says these things.
func (s sick) cluster(t *testing.T) Inquiry {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	keep := func(key kmsg.Key, answer func(req kmsg.Request) kmsg.Response) {
		c.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			return answer(req), nil, true
		})
	}
	keep(kmsg.Metadata, func(req kmsg.Request) kmsg.Response {
		resp := req.ResponseKind().(*kmsg.MetadataResponse)
		for i, addr := range c.ListenAddrs() {
			if i == 2 && s.advertised != "" {
				addr = s.advertised
			}
			host, port, _ := net.SplitHostPort(addr)
			number, _ := strconv.Atoi(port)
			broker := kmsg.NewMetadataResponseBroker()
			broker.NodeID, broker.Host, broker.Port = int32(i), host, int32(number)
			resp.Brokers = append(resp.Brokers, broker)
		}
		for _, asked := range req.(*kmsg.MetadataRequest).Topics {
			topic := kmsg.NewMetadataResponseTopic()
			topic.Topic = asked.Topic
			if s.noLog && *asked.Topic == transactionLog || *asked.Topic == "" {
				topic.ErrorCode = kerr.UnknownTopicOrPartition.Code
			} else {
				p := kmsg.NewMetadataResponseTopicPartition()
				p.Leader, p.Replicas, p.ISR = s.leader, s.replicas, s.isr
				if p.Leader < 0 {
					p.ErrorCode = kerr.LeaderNotAvailable.Code
				}
				topic.Partitions = append(topic.Partitions, p)
			}
			resp.Topics = append(resp.Topics, topic)
		}
		return resp
	})
	keep(kmsg.DescribeConfigs, func(req kmsg.Request) kmsg.Response {
		resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, asked := range req.(*kmsg.DescribeConfigsRequest).Resources {
			resource := kmsg.NewDescribeConfigsResponseResource()
			resource.ResourceType, resource.ResourceName = asked.ResourceType, asked.ResourceName
			if value, known := s.settings[asked.ConfigNames[0]]; known {
				config := kmsg.NewDescribeConfigsResponseResourceConfig()
				config.Name, config.Value = asked.ConfigNames[0], &value
				resource.Configs = append(resource.Configs, config)
			} else {
				resource.ErrorCode = kerr.TopicAuthorizationFailed.Code
			}
			resp.Resources = append(resp.Resources, resource)
		}
		return resp
	})
	keep(kmsg.FindCoordinator, func(req kmsg.Request) kmsg.Response {
		resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
		coordinator := kmsg.NewFindCoordinatorResponseCoordinator()
		coordinator.ErrorCode = s.coordinator
		resp.ErrorCode, resp.Coordinators = s.coordinator, append(resp.Coordinators, coordinator)
		return resp
	})
	return Inquiry{Kafka: []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()[:2]...)}, StateTopic: "state", ID: "walpost/7/walpost"}
}

// closedPort is an address at which nobody answers.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	return l.Addr().String()
}

// TestInquiry: each way in which brokers answer and do not work, by name; and nothing is said of
// brokers that are well.
func TestInquiry(t *testing.T) {
	t.Parallel()
	three, two := []int32{0, 1, 2}, []int32{0, 1}
	minimum := func(n int) map[string]string { return map[string]string{"min.insync.replicas": strconv.Itoa(n)} }
	factor := func(n int) map[string]string {
		return map[string]string{"min.insync.replicas": "2", "transaction.state.log.replication.factor": strconv.Itoa(n)}
	}
	none := kerr.CoordinatorNotAvailable.Code
	closed := closedPort(t)
	for name, c := range map[string]struct {
		sick sick
		says string // empty = nothing
	}{
		"all is well":          {sick{replicas: three, isr: three, settings: minimum(2)}, ""},
		"enough in sync":       {sick{replicas: three, isr: two, settings: minimum(2)}, ""},
		"settings are unknown": {sick{replicas: three, isr: three}, ""},
		"too few in sync": {
			sick{replicas: three, isr: two, settings: minimum(3)},
			`partition 0 of topic "state" cannot be written: min.insync.replicas is 3, and of its replicas on brokers [0 1 2] only [0 1] are in sync`,
		},
		"perhaps too few in sync": {sick{replicas: three, isr: two}, `topic "state" may be below min.insync.replicas, which walpost may not read (right DescribeConfigs)`},
		"too few replicas":        {sick{replicas: two, isr: two, settings: minimum(3)}, `topic "state" has a replication factor of 2, and its min.insync.replicas is 3`},
		"no leader":               {sick{replicas: three, isr: []int32{2}, leader: -1, settings: minimum(2)}, `topic "state" has no leader: LEADER_NOT_AVAILABLE`},
		"an unreachable broker": {
			sick{replicas: three, isr: three, settings: minimum(2), advertised: closed},
			"broker 2 does not answer at " + closed + ", the address that it advertises",
		},
		"a log that is not made": {
			sick{replicas: three, isr: three, settings: factor(5), noLog: true, coordinator: none},
			"FindCoordinator is answered COORDINATOR_NOT_AVAILABLE: the brokers cannot create topic __transaction_state. " +
				"By their transaction.state.log.replication.factor it needs 5 brokers (up: 3)",
		},
		"a log that is perhaps not made":  {sick{replicas: three, isr: three, settings: minimum(2), noLog: true, coordinator: none}, "(by default 3; up: 3)"},
		"a log that is about to be made":  {sick{replicas: three, isr: three, settings: factor(3), noLog: true, coordinator: none}, ""},
		"a coordinator that is not there": {sick{replicas: three, isr: three, settings: minimum(2), coordinator: none}, "FindCoordinator is answered COORDINATOR_NOT_AVAILABLE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cause := &kafkaError{fmt.Errorf("write: %w", context.DeadlineExceeded)}
			err := c.sick.cluster(t).Explain(t.Context(), cause)
			if c.says == "" {
				if !errors.Is(err, cause) || err.Error() != cause.Error() {
					t.Errorf("Explain = %v, want the error alone", err)
				}
				return
			}
			if !strings.Contains(err.Error(), c.says) || !errors.Is(err, cause) || !passes(err) {
				t.Errorf("Explain = %v, want %q", err, c.says)
			}
		})
	}
}

// TestInquiryAtTheTransactionLog: the partition of the id is what counts.
func TestInquiryAtTheTransactionLog(t *testing.T) {
	t.Parallel()
	q := sick{replicas: []int32{0, 1, 2}, isr: []int32{0}, settings: map[string]string{"min.insync.replicas": "2"}}.cluster(t)
	q.StateTopic = "" // of which nothing is known
	found := q.Find(t.Context())
	if len(found) != 1 || !strings.Contains(found[0], `the brokers cannot keep them: partition 0 of topic "__transaction_state" cannot be written`) {
		t.Errorf("Find = %q", found)
	}
	if got := hash("walpost/7636/walpost") % 50; got != 34 {
		t.Errorf("the hash chooses partition %d", got)
	}
}

// TestAtKafka: what the brokers are asked about, and what they are not.
func TestAtKafka(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]bool{
		&kafkaError{context.DeadlineExceeded}:                      true,
		&kafkaError{context.Canceled}:                              false,
		&kafkaError{&checkpoint.TopicError{Topic: "state"}}:        false,
		&sink.CommitError{Slow: true, Err: errors.New("slow")}:     true,
		&sink.CommitError{Fenced: true, Err: kerr.ProducerFenced}:  false,
		&sink.CommitError{Refused: true, Err: kerr.InvalidRecord}:  false,
		&sink.EventError{Outage: true, Err: errors.New("an EOF")}:  true,
		&sink.EventError{Outage: false, Err: kerr.MessageTooLarge}: false,
		errStale: false,
	} {
		if got := classify(err).atKafka; got != want {
			t.Errorf("%v: %t", err, got)
		}
	}
}
