package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// inquiryTime bounds an inquiry. With kafkaTimeout before it an outage is explained within half a
// minute.
const inquiryTime = 5 * time.Second

// transactionLog is where the brokers keep transactions.
const transactionLog = "__transaction_state"

// Inquiry finds out why the brokers do not do what they were asked for. The Kafka client tries
// again for as long as it may, and then says only that the time is up. So the questions behind the
// request are asked once more, one by one, and nothing is tried again: does each broker answer at
// the address that it advertises? Can the state topic be written? Is there a coordinator for the
// transactional id? It fences nobody and changes no topic.
type Inquiry struct {
	Kafka      []kgo.Opt // seeds and SASL
	Dial       func(ctx context.Context, network, addr string) (net.Conn, error)
	StateTopic string
	ID         string // transactional id; empty = there is none

	client   *kgo.Client
	metadata *kmsg.MetadataResponse
}

// InquiryError is an error of Kafka with what an Inquiry found.
type InquiryError struct {
	Found []string
	Err   error
}

func (e *InquiryError) Error() string {
	return strings.Join(e.Found, "; ") + " (" + e.Err.Error() + ")"
}
func (e *InquiryError) Unwrap() error { return e.Err }

// Explain returns err with what the brokers say, or err alone if they say nothing that would
// explain it.
func (q Inquiry) Explain(ctx context.Context, err error) error {
	if found := q.Find(ctx); len(found) > 0 {
		return &InquiryError{found, err}
	}
	return err
}

// Find returns what is wrong at the brokers, a sentence each.
func (q Inquiry) Find(ctx context.Context) (found []string) {
	ctx, cancel := context.WithTimeout(ctx, inquiryTime)
	defer cancel()
	opts := append(append([]kgo.Opt(nil), q.Kafka...), kgo.RequestRetries(1))
	if q.Dial != nil {
		opts = append(opts, kgo.Dialer(q.Dial))
	}
	var err error
	if q.client, err = kgo.NewClient(opts...); err != nil {
		return nil
	}
	defer q.client.Close()
	if q.metadata, err = q.topics(ctx); err != nil {
		return nil // no broker answers: that is known already
	}
	if found = q.brokers(ctx); len(found) > 0 {
		return found // the rest follows from it
	}
	found = q.partition(ctx, q.StateTopic, 0)
	if q.ID != "" {
		found = append(found, q.coordinator(ctx)...)
	}
	return found
}

func (q *Inquiry) topics(ctx context.Context) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range []string{q.StateTopic, transactionLog} {
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, topic)
	}
	return req.RequestWith(ctx, q.client)
}

// brokers asks each broker at the address that it advertises. Any may lead what is needed.
func (q *Inquiry) brokers(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, inquiryTime*2/3)
	defer cancel()
	var mu sync.Mutex
	var found []string
	var asked sync.WaitGroup
	for _, broker := range q.metadata.Brokers {
		asked.Go(func() {
			req := kmsg.NewPtrMetadataRequest()
			req.Topics = []kmsg.MetadataRequestTopic{}
			_, err := q.client.Broker(int(broker.NodeID)).Request(ctx, req)
			if err == nil {
				return
			}
			if errors.Is(err, context.DeadlineExceeded) {
				err = errors.New("no answer within 3 seconds")
			}
			mu.Lock()
			defer mu.Unlock()
			found = append(found, fmt.Sprintf("broker %d does not answer at %s, the address that it advertises: %v. Clients use that address and not the one in "+
				"WALPOST_KAFKA_BROKERS: is the broker up, is advertised.listeners right, and may this machine reach it?",
				broker.NodeID, net.JoinHostPort(broker.Host, strconv.Itoa(int(broker.Port))), err))
		})
	}
	asked.Wait()
	slices.Sort(found)
	return found
}

// partition tells why a partition cannot be written or read. A topic that is missing is somebody
// else's concern.
func (q *Inquiry) partition(ctx context.Context, topic string, partition int32) []string {
	at := slices.IndexFunc(q.metadata.Topics, func(t kmsg.MetadataResponseTopic) bool {
		return t.Topic != nil && *t.Topic == topic && t.ErrorCode == 0
	})
	if at < 0 {
		return nil
	}
	partitions := q.metadata.Topics[at].Partitions
	at = slices.IndexFunc(partitions, func(p kmsg.MetadataResponseTopicPartition) bool { return p.Partition == partition })
	if at < 0 {
		return nil
	}
	p := partitions[at]
	name := fmt.Sprintf("partition %d of topic %q", partition, topic)
	if p.Leader < 0 {
		return []string{fmt.Sprintf("%s has no leader: %v. Its replicas are on brokers %v, of which %v are in sync: start these", name, code(p.ErrorCode), p.Replicas, p.ISR)}
	}
	needed, known := q.setting(ctx, kmsg.ConfigResourceTypeTopic, topic, "min.insync.replicas")
	switch {
	case known && len(p.ISR) < min(needed, len(p.Replicas)):
		return []string{fmt.Sprintf("%s cannot be written: min.insync.replicas is %d, and of its replicas on brokers %v only %v are in sync. Start the others",
			name, needed, p.Replicas, p.ISR)}
	case known && len(p.Replicas) < needed: // newer brokers do not ask for more than there are
		return []string{fmt.Sprintf("%s has a replication factor of %d, and its min.insync.replicas is %d: older brokers then refuse every write. Set it to %d, or give the topic more replicas",
			name, len(p.Replicas), needed, len(p.Replicas))}
	case !known && len(p.ISR) < len(p.Replicas):
		return []string{fmt.Sprintf("%s may be below min.insync.replicas, which walpost may not read (right DescribeConfigs): of its replicas on brokers %v only %v are in sync",
			name, p.Replicas, p.ISR)}
	}
	return nil
}

// coordinator tells why nobody coordinates the transactions of the id.
func (q *Inquiry) coordinator(ctx context.Context) []string {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorType, req.CoordinatorKey, req.CoordinatorKeys = 1, q.ID, []string{q.ID}
	answer, says, err := q.findCoordinator(ctx, req)
	if err != nil {
		return nil
	}
	partitions := 0
	for _, t := range q.metadata.Topics {
		if t.Topic != nil && *t.Topic == transactionLog && t.ErrorCode == 0 {
			partitions = len(t.Partitions)
		}
	}
	if partitions > 0 {
		if found := q.partition(ctx, transactionLog, hash(q.ID)%int32(partitions)); len(found) > 0 {
			return []string{fmt.Sprintf("exactly once needs transactions, and the brokers cannot keep them: %s", found[0])}
		}
	}
	if answer == nil {
		return nil
	}
	what := fmt.Sprintf("exactly once needs a transaction coordinator, and FindCoordinator is answered %s", strings.TrimSuffix(answer.Message+": "+says, ": "))
	if partitions > 0 || !errors.Is(answer, kerr.CoordinatorNotAvailable) {
		return []string{what}
	}
	needed, known, up := 0, false, len(q.metadata.Brokers)
	if up > 0 {
		id := strconv.Itoa(int(q.metadata.Brokers[0].NodeID))
		needed, known = q.setting(ctx, kmsg.ConfigResourceTypeBroker, id, "transaction.state.log.replication.factor")
	}
	switch {
	case known && needed <= up:
		return nil // they are about to
	case known:
		return []string{fmt.Sprintf("%s: the brokers cannot create topic %s. By their transaction.state.log.replication.factor it needs %d brokers (up: %d). "+
			"Start the others, or lower it", what, transactionLog, needed, up)}
	default:
		return []string{fmt.Sprintf("%s: the brokers have not created topic %s. It needs as many brokers as their transaction.state.log.replication.factor says "+
			"(by default 3; up: %d)", what, transactionLog, up)}
	}
}

// findCoordinator returns the answer of a broker that answers; nil = there is a coordinator.
func (q *Inquiry) findCoordinator(ctx context.Context, req *kmsg.FindCoordinatorRequest) (answer *kerr.Error, says string, err error) {
	err = errors.New("no broker was asked")
	for _, broker := range append(q.client.SeedBrokers(), q.client.DiscoveredBrokers()...) {
		var kresp kmsg.Response
		if kresp, err = broker.Request(ctx, req); err != nil {
			continue
		}
		resp := kresp.(*kmsg.FindCoordinatorResponse)
		number, message := resp.ErrorCode, resp.ErrorMessage
		if len(resp.Coordinators) > 0 {
			number, message = resp.Coordinators[0].ErrorCode, resp.Coordinators[0].ErrorMessage
		}
		if message != nil {
			says = *message
		}
		return code(number), says, nil
	}
	return nil, "", err
}

// setting reads a number; known is false if it cannot.
func (q *Inquiry) setting(ctx context.Context, kind kmsg.ConfigResourceType, resource, name string) (value int, known bool) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	asked := kmsg.NewDescribeConfigsRequestResource()
	asked.ResourceType, asked.ResourceName, asked.ConfigNames = kind, resource, []string{name}
	req.Resources = append(req.Resources, asked)
	for _, broker := range append(q.client.SeedBrokers(), q.client.DiscoveredBrokers()...) {
		kresp, err := broker.Request(ctx, req)
		if err != nil {
			continue
		}
		for _, r := range kresp.(*kmsg.DescribeConfigsResponse).Resources {
			for _, c := range r.Configs {
				if c.Name == name && c.Value != nil {
					value, err = strconv.Atoi(*c.Value)
					return value, err == nil
				}
			}
		}
		return 0, false
	}
	return 0, false
}

// code is the error of a code, or nil.
func code(number int16) *kerr.Error {
	var e *kerr.Error
	errors.As(kerr.ErrorForCode(number), &e)
	return e
}

// hash is that of Java's strings without its sign: it chooses the partition of a transactional id.
func hash(id string) int32 {
	var h int32
	for i := range len(id) {
		h = 31*h + int32(id[i])
	}
	return h & 0x7fffffff
}
