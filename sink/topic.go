package sink

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/checkpoint"
)

const (
	// defaultLimit is max.message.bytes of a broker that was not asked.
	defaultLimit = 1048588
	// batchOverhead is how much smaller than the limit batches are kept: their own header, and room for versions to come.
	batchOverhead = 512
	// maxRequest is the brokers' default of socket.request.max.bytes. A larger request they answer by closing the connection,
	// again and again.
	maxRequest = 100 << 20
	// requestOverhead is what a request takes besides its batches, at most: names of topics, and some.
	requestOverhead = 4 << 10
	// lookAgain is the time between two looks at a topic that is missing.
	lookAgain = time.Second
)

// topic is a topic that events name. It is resolved once, before its first record is produced.
type topic struct {
	name      string
	limit     int64 // largest batch, in bytes; set before resolved
	resolved  atomic.Bool
	published atomic.Uint64
	inFlight  atomic.Int64
	moved     atomic.Int64 // as that of Sink

	partitions atomic.Int32 // over which its keys are spread; 0 before its first record
	offered    atomic.Int32 // which the client knows of
}

// topics are the topics seen so far. The map by bytes belongs to the goroutine that produces; names is shared.
type topics struct {
	mu    sync.Mutex
	names map[string]*topic
}

func (t *topics) find(name []byte) *topic {
	t.mu.Lock()
	defer t.mu.Unlock()
	if found, ok := t.names[string(name)]; ok {
		return found
	}
	added := &topic{name: string(name), limit: defaultLimit}
	t.names[added.name] = added
	return added
}

// known returns a topic that an event has named, or nil.
func (t *topics) known(name string) *topic {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.names[name]
}

// batchLimit is the client's question for the largest batch of a topic.
func (t *topics) batchLimit(name string) int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	limit := int64(defaultLimit)
	if found, ok := t.names[name]; ok {
		limit = found.limit
	}
	return int32(max(limit-batchOverhead, 512))
}

// stalled returns the resolved topics that have events in flight, of which none was confirmed for long. Whoever resolves one is
// looking already.
func (t *topics) stalled() (names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, topic := range t.names {
		if topic.resolved.Load() && topic.inFlight.Load() > 0 && since(topic.moved.Load()) > stall {
			names = append(names, name)
		}
	}
	return names
}

func (t *topics) published() map[string]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := make(map[string]uint64, len(t.names))
	for name, topic := range t.names {
		m[name] = topic.published.Load()
	}
	return m
}

// resolve finds out, before the first record of a topic, whether it is there and how large its batches may be. It
// creates a missing topic if it may, and else waits for it. It returns an error only if no waiting helps, or ctx ends.
func (s *Sink) resolve(ctx context.Context, t *topic) error {
	defer s.missing.Store(nil)
	denied := 0 // how often the brokers have denied a topic that they had just made, or that is there already
	for {
		err := s.lookup(ctx, t.name)
		switch {
		case err == nil:
			s.mu.Lock()
			known := s.said == t.name
			s.said = ""
			s.mu.Unlock()
			if known {
				s.waits.End()
				s.log.Info().Str("topic", t.name).Msg("topic is there now")
			}
			limit := s.limit(ctx, t.name)
			s.topics.mu.Lock()
			t.limit = limit
			s.topics.mu.Unlock()
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, kerr.UnknownTopicOrPartition) && s.cfg.CreateTopics:
			missing := err
			if err = s.create(ctx, t.name); err == nil {
				if denied++; denied <= 10 {
					continue
				}
				err = fmt.Errorf("the brokers say that it exists, and do not offer it (it is being deleted?): %w", missing)
			}
		}
		if errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.InvalidTopicException) || errors.Is(err, kerr.PolicyViolation) {
			return err
		}
		s.reportMissing(t.name, err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}

// FindTopics looks for topics of which nothing was confirmed for long: one may have been deleted under the client, which tries
// on for ever. A missing one is created, if that may be. The client does not take a topic that was made again for the old
// one: it gives up its events, as in an outage, and another Sink publishes them.
func (s *Sink) FindTopics(ctx context.Context) {
	for _, name := range s.topics.stalled() {
		err := s.lookup(ctx, name)
		if errors.Is(err, kerr.UnknownTopicOrPartition) && s.cfg.CreateTopics {
			err = s.create(ctx, name)
		}
		var refused *kerr.Error
		if errors.As(err, &refused) { // brokers that do not answer say nothing of the topic
			s.reportMissing(name, err)
			return
		}
	}
	if !s.held.Load() { // else it may be the word of whoever resolves the topic of the event that is held
		s.missing.Store(nil)
		s.waits.End()
	}
}

// reportMissing says why the events of a topic wait.
func (s *Sink) reportMissing(name string, err error) {
	reason := fmt.Sprintf("waiting for topic %q: %v", name, err)
	s.missing.Store(&reason)
	s.mu.Lock()
	s.said = name
	s.mu.Unlock()
	due := s.waits.Due(name, err.Error())
	if due && errors.Is(err, kerr.UnknownTopicOrPartition) && !s.cfg.CreateTopics {
		s.log.Warn().Str("topic", name).Msg("topic does not exist: its events wait, nothing is lost; create it, or set WALPOST_CREATE_TOPICS=true")
	} else if due {
		s.log.Warn().Str("topic", name).Err(err).Msg("topic cannot be used yet: its events wait, nothing is lost")
	}
}

// lookup asks the brokers for a topic. It uses no cache and creates nothing.
func (s *Sink) lookup(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = kmsg.StringPtr(name)
	req.Topics = append(req.Topics, asked)
	resp, err := req.RequestWith(ctx, s.client)
	if err != nil {
		return err
	}
	if len(resp.Topics) != 1 {
		return errors.New("the brokers answered without the topic")
	}
	return kerr.ErrorForCode(resp.Topics[0].ErrorCode)
}

// create makes a topic with the brokers' own defaults for partitions and replicas.
func (s *Sink) create(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req := kmsg.NewPtrCreateTopicsRequest()
	asked := kmsg.NewCreateTopicsRequestTopic()
	asked.Topic, asked.NumPartitions, asked.ReplicationFactor = name, -1, -1
	req.Topics = append(req.Topics, asked)
	resp, err := req.RequestWith(ctx, s.client)
	if err == nil && len(resp.Topics) != 1 {
		err = errors.New("the brokers answered without the topic")
	}
	if err != nil {
		return fmt.Errorf("create topic %q: %w", name, err)
	}
	err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		refused := &checkpoint.CreateError{Topic: name, Err: err}
		if says := resp.Topics[0].ErrorMessage; says != nil {
			refused.Says = *says
		}
		return refused
	}
	if err == nil {
		s.log.Info().Str("topic", name).Msg("topic created with the brokers' defaults")
	}
	// For a moment the brokers deny a topic that they have just made.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(20 * time.Millisecond):
		return nil
	}
}

// limit reads max.message.bytes of a topic. Who may not read it gets the default.
func (s *Sink) limit(ctx context.Context, name string) int64 {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req := kmsg.NewPtrDescribeConfigsRequest()
	asked := kmsg.NewDescribeConfigsRequestResource()
	asked.ResourceType, asked.ResourceName, asked.ConfigNames = kmsg.ConfigResourceTypeTopic, name, []string{"max.message.bytes"}
	req.Resources = append(req.Resources, asked)
	resp, err := req.RequestWith(ctx, s.client)
	if err == nil && len(resp.Resources) == 1 {
		err = kerr.ErrorForCode(resp.Resources[0].ErrorCode)
	}
	if err != nil || len(resp.Resources) != 1 {
		s.log.Info().Str("topic", name).AnErr("cause", err).
			Msg("max.message.bytes cannot be read (right DescribeConfigs), Kafka's default of 1 MiB is assumed")
		return defaultLimit
	}
	for _, c := range resp.Resources[0].Configs {
		if c.Name != "max.message.bytes" || c.Value == nil {
			continue
		}
		if v, err := strconv.ParseInt(*c.Value, 10, 64); err == nil {
			return min(v, s.cfg.MaxRequest-requestOverhead)
		}
	}
	return defaultLimit
}
