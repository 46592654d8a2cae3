package integration

import (
	"strings"
	"testing"
	"time"
)

// TestTopicsThatCollide: to Kafka a dot and an underscore in the names of topics are the same. The relay says what the brokers say of
// the second of two such names, and goes on once the first is gone.
func TestTopicsThatCollide(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{})
	env.Init(t)
	relay := env.Run(t)
	relay.Ready(t, 30*time.Second)
	insert(t, env, "order.paid", "k", 1)
	insert(t, env, "order_paid", "k", 1)
	halts(t, relay, "collides with existing topic: "+env.Prefix+"order.paid", "a dot and an underscore", "To skip its whole transaction")
	if n := len(awaitRecords(t, env, env.Prefix+"order.paid", 1)); n != 1 {
		t.Errorf("%d records in the first topic, want 1", n)
	}
	env.DeleteTopics(t, env.Prefix+"order.paid")
	relay = env.Run(t)
	relay.Ready(t, 30*time.Second)
	if n := len(awaitRecords(t, env, env.Prefix+"order_paid", 1)); n != 1 {
		t.Errorf("%d records in the second topic, want 1", n)
	}
	relay.Stop(t)
}

// TestStateTopicCollides: the same with the name of the state topic.
func TestStateTopicCollides(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{})
	env.Init(t)
	other := strings.ReplaceAll(env.StateTopic, ".", "_")
	env.CreateTopics(t, []string{other}, 1)
	t.Cleanup(func() { env.DeleteTopics(t, other) })
	halts(t, env.Run(t), "collides with existing topic: "+other, "name another topic in WALPOST_STATE_TOPIC")
}
