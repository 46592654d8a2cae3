package integration

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Client opens a Kafka client until the test ends.
func (e *Env) Client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(slices.Concat([]kgo.Opt{kgo.SeedBrokers(e.Brokers...)}, e.Login, opts)...)
	if err != nil {
		t.Fatalf("create kafka client: %v", err)
	}
	t.Cleanup(client.Close)
	return client
}

// CreateTopic makes a topic with settings of its own, such as a small max.message.bytes.
func (e *Env) CreateTopic(t testing.TB, topic string, partitions int32, config map[string]string) {
	t.Helper()
	admin := kadm.NewClient(e.Client(t))
	settings := make(map[string]*string, len(config))
	for name, value := range config {
		settings[name] = kadm.StringPtr(value)
	}
	if _, err := admin.CreateTopic(t.Context(), partitions, -1, settings, topic); err != nil {
		t.Fatalf("create topic %s: %v", topic, err)
	}
}

// CreateTopics makes topics with the brokers' defaults.
func (e *Env) CreateTopics(t testing.TB, topics []string, partitions int32) {
	t.Helper()
	admin := kadm.NewClient(e.Client(t))
	responses, err := admin.CreateTopics(t.Context(), partitions, -1, nil, topics...)
	if err == nil {
		err = responses.Error()
	}
	if err != nil {
		t.Fatalf("create topics: %v", err)
	}
}

// SetTopicConfig changes a setting of a topic while it is in use.
func (e *Env) SetTopicConfig(t testing.TB, topic, name, value string) {
	t.Helper()
	admin := kadm.NewClient(e.Client(t))
	responses, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: name, Value: &value}}, topic)
	if err == nil {
		_, err = responses.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	}
	if err != nil {
		t.Fatalf("set %s of topic %s: %v", name, topic, err)
	}
}

// deleteTopics takes the topics of the test from the shared broker, which would otherwise carry
// them all to its end.
func (e *Env) deleteTopics(t testing.TB) {
	t.Helper()
	e.DeleteTopics(t, e.Prefix, e.StateTopic)
}

// DeleteTopics deletes the topics of these names, and those that begin with one which ends in a
// dot. A failure is said and does no harm.
func (e *Env) DeleteTopics(t testing.TB, wanted ...string) {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(e.Brokers...)}, e.Login...)...)
	if err != nil {
		t.Errorf("create kafka client: %v", err)
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		t.Logf("list topics to delete: %v", err)
		return
	}
	names := slices.DeleteFunc(topics.Names(), func(topic string) bool {
		return !slices.ContainsFunc(wanted, func(name string) bool {
			return topic == name || strings.HasSuffix(name, ".") && strings.HasPrefix(topic, name)
		})
	})
	if _, err := admin.DeleteTopics(ctx, names...); err != nil {
		t.Logf("delete topics: %v", err)
	}
}
