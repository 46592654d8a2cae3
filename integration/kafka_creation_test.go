package integration

import (
	"strings"
	"testing"
	"time"
)

// TestTopicsThatCollide: to Kafka a dot and an underscore in the names of topics are the same. The
// relay says what the brokers say of the second of two such names, and goes on once the first is
// gone.
func TestTopicsThatCollide(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{})
	env.Init(t)
	relay := env.Run(t)
	relay.Ready(t, 30*time.Second)
	insert(t, env, "order.paid", "k", 1)
	insert(t, env, "order_paid", "k", 1)
	halts(t, relay, "collides with existing topic: "+env.Prefix+"order.paid", "a dot and an underscore",
		"To skip its whole transaction")
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

// TestMissingTopic waits for a topic, reports it, and loses nothing.
func TestMissingTopic(t *testing.T) {
	env := Setup(t, Needs{Postgres: 18})
	env.Init(t)
	relay := env.Run(t, "WALPOST_CREATE_TOPICS=false")
	relay.Ready(t, 30*time.Second)
	insert(t, env, "order", "k", 1000)
	relay.WaitLog(t, 20*time.Second, "topic does not exist")
	if _, reasons := relay.Get("/readyz"); !strings.Contains(reasons, env.Prefix+"order") {
		t.Errorf("/readyz says %q", reasons)
	}
	made := time.Now().Truncate(time.Millisecond)
	env.CreateTopic(t, env.Prefix+"order", 1, nil)
	for i, r := range awaitRecords(t, env, env.Prefix+"order", 1000) {
		if r.Timestamp.Before(made) { // retention would count the wait
			t.Fatalf("record %d is of %s before its topic was made", i, made.Sub(r.Timestamp))
		}
	}
	relay.Ready(t, 10*time.Second)
	relay.Stop(t)
}
