package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/internal/config"
)

// topicSet are the topics of the demo.
type topicSet struct {
	client     *kgo.Client
	admin      *kadm.Client
	made       []string
	partitions int
	ends       kadm.ListedOffsets // of before the first event
}

func newTopicSet(cfg *config.Config) (*topicSet, error) {
	client, err := newClient(cfg, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return nil, err
	}
	return &topicSet{client: client, admin: kadm.NewClient(client)}, nil
}

func newClient(cfg *config.Config, more ...kgo.Opt) (*kgo.Client, error) {
	options, err := cfg.KafkaOptions()
	if err != nil {
		return nil, err
	}
	dial, err := cfg.KafkaDialer()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(append(options, kgo.Dialer(dial), kgo.ClientID("walpost demo")), more...)...)
	if err != nil {
		return nil, fmt.Errorf("create Kafka client: %w", err)
	}
	return client, nil
}

func (t *topicSet) close() { t.client.Close() }

// create makes the topics that are missing, and forgets the position that a killed demo stored for
// a slot that is gone.
func (t *topicSet) create(ctx context.Context, partitions int, source string) error {
	asking, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := t.client.Ping(asking); err != nil {
		return fmt.Errorf("connect to Kafka: %w", err)
	}
	there, err := t.admin.ListTopics(ctx, append([]string{StateTopic}, topics...)...)
	if err != nil {
		return fmt.Errorf("list the demo's topics: %w", err)
	}
	if there.Has(StateTopic) {
		err := t.client.ProduceSync(ctx, &kgo.Record{Topic: StateTopic, Key: []byte(source)}).FirstErr()
		if err != nil {
			return fmt.Errorf("forget the position in topic %s: %w", StateTopic, err)
		}
	}
	t.made = append(t.made, StateTopic) // made by the relay, or by an earlier demo's
	for _, name := range topics {
		if there.Has(name) {
			continue
		}
		made, err := t.admin.CreateTopics(ctx, int32(partitions), -1, nil, name)
		if err != nil {
			return fmt.Errorf("create topic %s: %w", name, err)
		}
		err = made[name].Err
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return &checkpoint.CreateError{Topic: name, Says: made[name].ErrMessage, Err: err}
		}
		if err == nil {
			t.made = append(t.made, name)
		}
	}
	return t.readEnds(ctx, partitions)
}

// readEnds reads where the topics end. For a moment brokers do not know new ones.
func (t *topicSet) readEnds(ctx context.Context, partitions int) error {
	t.partitions = partitions
	var err error
	known := await(ctx, 15*time.Second, func() bool {
		t.ends, err = t.admin.ListEndOffsets(ctx, topics...)
		if err == nil {
			err = t.ends.Error()
		}
		return err == nil && len(t.ends) == len(topics)
	})
	if !known {
		return fmt.Errorf("read the ends of the demo's topics: %w", errors.Join(err, ctx.Err()))
	}
	return nil
}

// remove deletes the topics that the demo made.
func (t *topicSet) remove(ctx context.Context) error {
	responses, err := t.admin.DeleteTopics(ctx, t.made...)
	if err != nil {
		return fmt.Errorf("delete the demo's topics: %w", err)
	}
	for _, response := range responses {
		if response.Err != nil && !errors.Is(response.Err, kerr.UnknownTopicOrPartition) {
			return fmt.Errorf("delete topic %s: %w", response.Topic, response.Err)
		}
	}
	return nil
}
