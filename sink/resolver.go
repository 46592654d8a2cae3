package sink

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/checkpoint"
)

const (
	// defaultLimit is max.message.bytes of a broker that was not asked.
	defaultLimit = 1048588
	// batchOverhead is how much smaller than the limit batches are kept: their own header, and room
	// for versions to come.
	batchOverhead = 512
	// maxRequest is the brokers' default of socket.request.max.bytes. A larger request they answer
	// by closing the connection, again and again.
	maxRequest = 100 << 20
	// requestOverhead is what a request takes besides its batches, at most: names of topics, and
	// some.
	requestOverhead = 4 << 10
	// betweenLookups is the time between two questions for a topic that is missing.
	betweenLookups = time.Second
)

// resolver asks the brokers for the topics that events go to, and creates missing ones if it may.
// The goroutine that prepares a topic calls resolve, one topic at a time; whoever watches the sink
// calls findStalled. Both say in missing which topic events wait for, and why.
type resolver struct {
	client     Client
	log        zerolog.Logger
	create     bool  // missing topics
	maxRequest int64 // bytes

	missing atomic.Pointer[string] // nil = no events wait for a topic
	notice  Notice                 // when the log names a topic again
}

// resolve finds out, once, whether a topic is there and how large its batches may be. It creates a
// missing topic if it may, and else waits for it. An error means that no waiting helps, or that ctx
// ended.
func (r *resolver) resolve(ctx context.Context, t *topic) error {
	if t.resolved.Load() {
		return nil
	}
	defer r.clear()
	reported := false
	for creations := 0; ; {
		created, err := r.ensure(ctx, t.name)
		switch {
		case err == nil && !created:
			if reported {
				r.log.Info().Str("topic", t.name).Msg("topic is there now")
			}
			t.limit.Store(r.limit(ctx, t.name))
			t.resolved.Store(true)
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case created && creations < 10: // for a moment the brokers deny a topic they have just made
			creations++
			continue
		case created:
			err = fmt.Errorf("the brokers say that it exists, and do not offer it (it is being deleted?): %w",
				kerr.UnknownTopicOrPartition)
		case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.InvalidTopicException),
			errors.Is(err, kerr.PolicyViolation):
			return err
		}
		reported = true
		r.report(t.name, err)
		if err := sleep(ctx, betweenLookups); err != nil {
			return err
		}
	}
}

// find asks for topics of which nothing was confirmed for long: one may have been deleted under the
// client, which tries on for ever. A missing one is created, if that may be. The client does not
// take a topic that was made again for the old one: it gives up its events, as in an outage, and
// another Sink publishes them. It reports whether the brokers have all of them.
func (r *resolver) find(ctx context.Context, names []string) bool {
	for _, name := range names {
		_, err := r.ensure(ctx, name)
		var refused *kerr.Error
		if errors.As(err, &refused) { // brokers that do not answer say nothing of the topic
			r.report(name, err)
			return false
		}
	}
	return true
}

// clear says that no events wait for a topic any more.
func (r *resolver) clear() {
	r.missing.Store(nil)
	r.notice.End()
}

// report says why the events of a topic wait.
func (r *resolver) report(name string, err error) {
	reason := fmt.Sprintf("waiting for topic %q: %v", name, err)
	absent := errors.Is(err, kerr.UnknownTopicOrPartition) && !r.create
	if absent {
		reason = fmt.Sprintf("waiting for topic %q, which does not exist: create it, or set WALPOST_CREATE_TOPICS=true", name)
	}
	r.missing.Store(&reason)
	due := r.notice.Due(name, err.Error())
	if due && absent {
		r.log.Warn().Str("topic", name).
			Msg("topic does not exist: its events wait, nothing is lost; create it, or set WALPOST_CREATE_TOPICS=true")
	} else if due {
		r.log.Warn().Str("topic", name).Err(err).Msg("topic cannot be used yet: its events wait, nothing is lost")
	}
}

// ensure asks for a topic, and creates it if it is missing and may be created.
func (r *resolver) ensure(ctx context.Context, name string) (created bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err = r.lookup(ctx, name)
	if r.create && errors.Is(err, kerr.UnknownTopicOrPartition) {
		err = r.createTopic(ctx, name)
		return err == nil, err
	}
	return false, err
}

// lookup asks the brokers for a topic. It uses no cache and creates nothing.
func (r *resolver) lookup(ctx context.Context, name string) error {
	req := kmsg.NewPtrMetadataRequest()
	asked := kmsg.NewMetadataRequestTopic()
	asked.Topic = kmsg.StringPtr(name)
	req.Topics = append(req.Topics, asked)
	resp, err := req.RequestWith(ctx, r.client)
	if err != nil {
		return err
	}
	if len(resp.Topics) != 1 {
		return errors.New("the brokers answered without the topic")
	}
	return kerr.ErrorForCode(resp.Topics[0].ErrorCode)
}

// createTopic makes a topic with the brokers' own defaults for partitions and replicas.
func (r *resolver) createTopic(ctx context.Context, name string) error {
	req := kmsg.NewPtrCreateTopicsRequest()
	asked := kmsg.NewCreateTopicsRequestTopic()
	asked.Topic, asked.NumPartitions, asked.ReplicationFactor = name, -1, -1
	req.Topics = append(req.Topics, asked)
	resp, err := req.RequestWith(ctx, r.client)
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
		r.log.Info().Str("topic", name).Msg("topic created with the brokers' defaults")
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// limit reads max.message.bytes of a topic. Without the right to read it, it is the default.
func (r *resolver) limit(ctx context.Context, name string) int64 {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req := kmsg.NewPtrDescribeConfigsRequest()
	asked := kmsg.NewDescribeConfigsRequestResource()
	asked.ResourceType, asked.ResourceName = kmsg.ConfigResourceTypeTopic, name
	asked.ConfigNames = []string{"max.message.bytes"}
	req.Resources = append(req.Resources, asked)
	resp, err := req.RequestWith(ctx, r.client)
	if err == nil && len(resp.Resources) == 1 {
		err = kerr.ErrorForCode(resp.Resources[0].ErrorCode)
		for _, c := range resp.Resources[0].Configs {
			if c.Name != "max.message.bytes" || c.Value == nil {
				continue
			}
			if v, bad := strconv.ParseInt(*c.Value, 10, 64); bad == nil {
				return min(v, r.maxRequest-requestOverhead)
			}
		}
	}
	r.log.Info().Str("topic", name).AnErr("cause", err).
		Msg("max.message.bytes cannot be read (right DescribeConfigs), Kafka's default of 1 MiB is assumed")
	return defaultLimit
}
