package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// TestOnePartitionStuck has one topic that cannot be written beside one that can. What is published
// behind the oldest event that waits must be kept in mind, and is sent again after a kill: it is
// bounded as what is in flight is.
func TestOnePartitionStuck(t *testing.T) {
	env := Setup(t, Needs{Kafka: Faulty})
	env.Init(t)
	const bound = "WALPOST_MAX_IN_FLIGHT_BYTES=1MiB"
	relay := env.Run(t, bound)
	relay.Ready(t, 30*time.Second)
	for _, kind := range []string{"stuck", "flows"} {
		insert(t, env, kind, "k", 1)
		awaitRecords(t, env, env.Prefix+kind, 1)
	}
	env.Fake.FailProduce(t, env.Prefix+"stuck", kerr.NotLeaderForPartition.Code, -1)
	insert(t, env, "stuck", "k", 1)
	const rows = 20_000 // some twelve times the bound
	for range 200 {
		insert(t, env, "flows", "k", rows/200)
	}
	Eventually(t, 30*time.Second, "events behind the one that waits",
		func() bool { return published(t, env, relay, "flows") > 1000 })
	time.Sleep(2 * time.Second) // without a bound the rest is published by now
	if n := published(t, env, relay, "flows"); n > 2100 {
		t.Errorf("%v events of at least 512 bytes passed one that waits, and the bound is 1 MiB", n)
	}
	relay.Kill()
	relay = env.Run(t, bound)
	relay.Ready(t, 30*time.Second)
	Eventually(t, 30*time.Second, "events behind the one that waits",
		func() bool { return published(t, env, relay, "flows") > 1000 })
	env.Fake.Heal(t)
	repeats := len(awaitRecords(t, env, env.Prefix+"flows", 1+rows)) - rows - 1
	if repeats == 0 || repeats > 2100 {
		t.Errorf("%d repeats after a kill, want some, and at most the 1 MiB that was in flight", repeats)
	}
	if n := len(awaitRecords(t, env, env.Prefix+"stuck", 2)); n != 2 {
		t.Errorf("%d records of 2 where it was stuck", n)
	}
	relay.Stop(t)
}

// TestKilledWhileItDrains kills a relay that was told to stop and cannot finish: what was confirmed
// while it waited is stored, and not sent again.
func TestKilledWhileItDrains(t *testing.T) {
	env := Setup(t, Needs{Kafka: Faulty})
	env.Init(t)
	relay := env.Run(t, "WALPOST_DRAIN_TIMEOUT=5m")
	relay.Ready(t, 30*time.Second)
	for _, kind := range []string{"stuck", "flows"} {
		insert(t, env, kind, "k", 1)
		awaitRecords(t, env, env.Prefix+kind, 1)
	}
	env.Fake.FailProduce(t, env.Prefix+"stuck", kerr.NotLeaderForPartition.Code, -1)
	env.Fake.Freeze()
	insert(t, env, "flows", "k", 100)
	insert(t, env, "stuck", "k", 1)
	Eventually(t, 10*time.Second, "events in flight", func() bool { return relay.Metrics(t)["walpost_in_flight_events"] == 101 })
	relay.Term()
	relay.WaitLog(t, 10*time.Second, "stopping")
	env.Fake.Thaw()
	Eventually(t, 10*time.Second, "what can be confirmed to be confirmed",
		func() bool { return relay.Metrics(t)["walpost_in_flight_events"] == 1 })
	awaitStored(t, env, awaitRecords(t, env, env.Prefix+"flows", 101)[100])
	relay.Kill()
	env.Fake.Heal(t)
	relay = env.Run(t)
	relay.Ready(t, 30*time.Second)
	awaitRecords(t, env, env.Prefix+"stuck", 2)
	if n := len(awaitRecords(t, env, env.Prefix+"flows", 101)); n != 101 {
		t.Errorf("%d records of 101 events: those confirmed while it drained were sent again", n)
	}
	relay.Stop(t)
}

// TestClientGivesUp has the brokers answer with an error that is no word on the event. The relay
// goes on with another client, without an exit and without a loss.
func TestClientGivesUp(t *testing.T) {
	env := Setup(t, Needs{Kafka: Faulty})
	env.Init(t)
	relay := env.Run(t)
	relay.Ready(t, 30*time.Second)
	insert(t, env, "order", "k", 1)
	awaitRecords(t, env, env.Prefix+"order", 1)
	env.Fake.FailProduce(t, env.Prefix+"order", kerr.SaslAuthenticationFailed.Code, 3)
	insert(t, env, "order", "k", 100)
	if n := len(awaitRecords(t, env, env.Prefix+"order", 101)); n != 101 {
		t.Errorf("%d records of 101", n)
	}
	if env.Fake.Hits(t) != 3 {
		t.Errorf("%d of 3 faults were met", env.Fake.Hits(t))
	}
	relay.Ready(t, 10*time.Second)
	if n := published(t, env, relay, "order"); n != 101 {
		t.Errorf("the relay counts %v published events, want 101", n)
	}
	relay.Stop(t)
}

// TestStateTopicStuck: events can be written and the position cannot. What a kill repeats is
// bounded, and the relay says why it stands still.
func TestStateTopicStuck(t *testing.T) {
	env := Setup(t, Needs{Kafka: Faulty})
	env.Init(t)
	const bound = "WALPOST_MAX_IN_FLIGHT_BYTES=1MiB"
	relay := env.Run(t, bound)
	relay.Ready(t, 30*time.Second)
	insert(t, env, "flows", "k", 1)
	awaitRecords(t, env, env.Prefix+"flows", 1)
	env.Fake.FailProduce(t, env.StateTopic, kerr.NotLeaderForPartition.Code, -1)
	const rows = 20_000 // some twelve times the bound
	for range 200 {
		insert(t, env, "flows", "k", rows/200)
	}
	Eventually(t, 30*time.Second, "the relay to be not ready", func() bool { return !relay.IsReady() })
	_, reasons := relay.Get("/readyz")
	if !strings.Contains(reasons, env.StateTopic) {
		t.Errorf("/readyz says %q", reasons)
	}
	relay.WaitLog(t, 10*time.Second, "events or their position wait")
	Eventually(t, 30*time.Second, "what the bound allows to be published",
		func() bool { return published(t, env, relay, "flows") >= 1000 })
	if n := published(t, env, relay, "flows"); n > 2200 {
		t.Errorf("%v events were published behind the stored position, the bound is 1 MiB", n)
	}
	relay.Kill()
	env.Fake.Heal(t)
	relay = env.Run(t, bound)
	relay.Ready(t, 30*time.Second)
	if repeats := len(awaitRecords(t, env, env.Prefix+"flows", 1+rows)) - rows - 1; repeats == 0 || repeats > 2200 {
		t.Errorf("%d repeats after a kill, want some, and at most 1 MiB", repeats)
	}
	relay.Stop(t)
}
