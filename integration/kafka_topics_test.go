package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration/checker"
)

// readTopic reads a topic to its end, each partition in its order.
func readTopic(t testing.TB, env *Env, topic string) map[int32][]*kgo.Record {
	t.Helper()
	c, err := checker.NewConsumer(env.Brokers, topic, env.Login...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	records := map[int32][]*kgo.Record{}
	if _, err := c.Drain(t.Context(), func(r *kgo.Record, _ int32) { records[r.Partition] = append(records[r.Partition], r) }); err != nil {
		t.Fatal(err)
	}
	return records
}

// TestPartitionsAdded adds partitions to a topic under load: keys move. An event of a key is in its
// new partition only after all before it were confirmed in the old one, also if the relay is killed
// at that moment.
func TestPartitionsAdded(t *testing.T) {
	t.Parallel()
	const before, after = 3, 7
	for _, c := range []struct {
		delivery string
		kill     bool
		repeats  int
	}{{"at-least-once", false, 0}, {"at-least-once", true, inAMiB}, {exactly, true, 0}} {
		t.Run(fmt.Sprintf("%s, killed %t", c.delivery, c.kill), func(t *testing.T) {
			env := Setup(t, Needs{})
			env.Init(t)
			topic := env.Prefix + "order"
			env.CreateTopic(t, topic, before, map[string]string{"message.timestamp.type": "LogAppendTime"})
			vars := []string{"WALPOST_DELIVERY=" + c.delivery, "WALPOST_MAX_IN_FLIGHT_BYTES=1MiB"}
			relay := env.Run(t, vars...)
			relay.Ready(t, 30*time.Second)
			work := env.Workload(t, WorkloadOptions{Rate: 2000, Types: []string{"order"}, NoLarge: true})
			work.WaitCommitted(t, 2000)
			responses, err := kadm.NewClient(env.Client(t)).UpdatePartitions(t.Context(), after, topic)
			if err != nil || responses.Error() != nil {
				t.Fatal(err, responses.Error())
			}
			// A new topic makes the client ask for all of them; else it does so every five minutes.
			insert(t, env, "nudge", "k", 1)
			relay.WaitLog(t, 30*time.Second, "partitions were added")
			if c.kill {
				relay.Kill()
				relay = env.Run(t, vars...)
				relay.Ready(t, 30*time.Second)
			}
			work.WaitCommitted(t, work.Committed()+2000)
			work.Stop(t)
			caughtUp(t, env, relay)
			checkMoved(t, readTopic(t, env, topic), work.Truth(t), topic, before, after, c.repeats)
			relay.Stop(t)
		})
	}
}

// checkMoved checks order per key across the change: first the records of its old partition, then
// those of the new one.
func checkMoved(
	t testing.TB, records map[int32][]*kgo.Record, truth *Truth, topic string, before, after int32, maxRepeats int,
) {
	t.Helper()
	type place struct {
		key       string
		partition int32
	}
	places := map[place][]*kgo.Record{}
	for partition, list := range records {
		for _, r := range list {
			places[place{string(r.Key), partition}] = append(places[place{string(r.Key), partition}], r)
		}
	}
	keys := map[string]int{} // how many events there must be
	for _, e := range truth.Events {
		if e.Topic == topic {
			keys[e.Key]++
		}
	}
	repeats, moved, found := 0, 0, 0
	for key, events := range keys {
		from := place{key, checker.PartitionOf([]byte(key), before)}
		to := place{key, checker.PartitionOf([]byte(key), after)}
		list := places[from]
		if from != to {
			old, added := places[from], places[to]
			if len(old) > 0 && len(added) > 0 {
				moved++
				if last, first := old[len(old)-1].Timestamp, added[0].Timestamp; first.Before(last) {
					t.Errorf("key %q: written to its new partition at %s, to the old one at %s", key, first, last)
				}
			}
			list = slices.Concat(old, added)
		}
		found += len(list)
		repeats += checkKey(t, list, truth, key, events)
	}
	total := 0
	for _, list := range records {
		total += len(list)
	}
	t.Logf("%d records, %d repeats, %d of %d keys moved", total, repeats, moved, len(keys))
	if found != total {
		t.Errorf("%d records are in neither partition of their key", total-found)
	}
	if repeats > maxRepeats || moved < 10 {
		t.Errorf("want at most %d repeats, and keys that move", maxRepeats)
	}
}

// checkKey checks that the records of one key are its events, in order, and returns how many are
// repeats.
func checkKey(t testing.TB, records []*kgo.Record, truth *Truth, key string, events int) (repeats int) {
	t.Helper()
	rank := 0
	seen := map[string]bool{}
	for _, r := range records {
		e := truth.Events[headerValue(r, "id")]
		switch {
		case e == nil:
			t.Fatalf("key %q: an event that was never committed", key)
		case seen[e.ID]:
			repeats++
			continue
		case e.Rank != rank:
			t.Errorf("key %q: event %d where %d is due", key, e.Rank, rank)
		}
		seen[e.ID] = true
		rank++
	}
	if rank != events {
		t.Errorf("key %q: %d events of %d", key, rank, events)
	}
	return repeats
}

// TestTopicMadeAgain deletes a topic under load, and makes it again. The relay goes on by itself;
// what was confirmed is gone with the topic, and what was committed since, also while there was no
// topic, is there, in order, without a gap. Another topic lacks nothing.
func TestTopicMadeAgain(t *testing.T) {
	t.Parallel()
	for _, delivery := range deliveries {
		for _, create := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, create %t", delivery, create), func(t *testing.T) {
				if create {
					long(t)
				}
				env := Setup(t, Needs{})
				env.Init(t)
				topic := env.Prefix + "order"
				env.CreateTopic(t, topic, 3, nil)
				relay := env.Run(t, "WALPOST_DELIVERY="+delivery, fmt.Sprint("WALPOST_CREATE_TOPICS=", create),
					"WALPOST_MAX_IN_FLIGHT_BYTES=1MiB")
				env.CreateTopic(t, env.Prefix+"customer", 3, nil)
				env.CreateTopic(t, env.Prefix+"last", 1, nil)
				relay.Ready(t, 30*time.Second)
				kinds := []string{"order", "customer"}
				work := env.Workload(t, WorkloadOptions{Rate: 1000, Types: kinds, NoLarge: true})
				work.WaitCommitted(t, 2000)
				admin := kadm.NewClient(env.Client(t, kgo.MetadataMinAge(50*time.Millisecond)))
				id := topicID(t, admin, topic)
				if _, err := admin.DeleteTopic(t.Context(), topic); err != nil {
					t.Fatal(err)
				}
				Eventually(t, time.Minute, "the topic to be gone", func() bool { return topicID(t, admin, topic) != id })
				time.Sleep(time.Second) // for a moment the brokers still take, and lose, what is written to it
				again := env.ReadTruth(t)
				work.WaitCommitted(t, work.Committed()+1000)
				if !create {
					env.CreateTopic(t, topic, 3, nil)
				}
				Eventually(t, time.Minute, "the topic to be there", func() bool {
					topics, err := admin.ListTopics(t.Context(), topic)
					return err == nil && topics.Error() == nil
				})
				work.WaitCommitted(t, work.Committed()+2000)
				work.Stop(t)
				caughtUp(t, env, relay)
				gone, repeats := checkMadeAgain(t, readTopic(t, env, topic), work.Truth(t), again, topic)
				if gone == 0 {
					t.Error("nothing went with the topic: this proves nothing")
				}
				gone, others := checkMadeAgain(t, readTopic(t, env, env.Prefix+"customer"), work.Truth(t),
					again, env.Prefix+"customer")
				if gone > 0 {
					t.Errorf("%d events of another topic are missing", gone)
				}
				if repeats += others; delivery == exactly && repeats > 0 || repeats > 2*inAMiB {
					t.Errorf("%d repeats", repeats)
				}
				relay.Stop(t)
			})
		}
	}
}

// topicID identifies a topic; it is zero if there is none of this name.
func topicID(t testing.TB, admin *kadm.Client, topic string) kadm.TopicID {
	t.Helper()
	topics, err := admin.ListTopics(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return topics[topic].ID
}

// checkMadeAgain checks that a topic has the last events of each key, without a gap, and all of
// those that follow what was committed when it was deleted. It returns how many are not there of
// those that were, and how many repeats are.
func checkMadeAgain(
	t testing.TB, records map[int32][]*kgo.Record, truth, again *Truth, topic string,
) (gone, repeats int) {
	t.Helper()
	next := map[string]int{} // rank that a key must show next
	seen := map[string]bool{}
	for _, list := range records {
		for _, r := range list {
			id, key := headerValue(r, "id"), string(r.Key)
			e := truth.Events[id]
			if e == nil {
				t.Fatalf("event %q was never committed", id)
			}
			if seen[id] {
				repeats++
				continue
			}
			seen[id] = true
			if want, known := next[key]; known && e.Rank != want {
				t.Errorf("key %q: event %d where %d is due", key, e.Rank, want)
			}
			next[key] = e.Rank + 1
		}
	}
	missing := 0
	for id, e := range truth.Events {
		switch {
		case e.Topic != topic || seen[id]:
		case again.Events[id] == nil:
			missing++
		default:
			gone++
		}
	}
	t.Logf("topic %s: %d events, %d repeats, %d gone with the topic, %d missing", topic, len(seen), repeats,
		gone, missing)
	if missing > 0 || len(seen) == 0 {
		t.Error("events are missing that were committed after the topic was deleted")
	}
	return gone, repeats
}

// TestStateTopicMadeAgain deletes the state topic under a relay that runs, which makes it again: it
// goes on, and repeats nothing. With exactly once the topic is what tells whether a Kafka
// transaction was committed, so one that was being committed is sent again.
func TestStateTopicMadeAgain(t *testing.T) {
	t.Parallel()
	for _, delivery := range deliveries {
		t.Run(delivery, func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{})
			env.Init(t)
			relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
			relay.Ready(t, 30*time.Second)
			work := env.Workload(t, WorkloadOptions{Rate: 500, NoLarge: true})
			work.WaitCommitted(t, 500)
			env.DeleteTopics(t, env.StateTopic)
			time.Sleep(2 * time.Second) // the topic is away for a moment, and some inspections
			before := confirmedLSN(t, env)
			Eventually(t, time.Minute, "a position to be confirmed",
				func() bool { return confirmedLSN(t, env) > before })
			work.Stop(t)
			relay.Ready(t, time.Minute)
			repeats := 0
			if delivery == exactly {
				repeats = 4 * inAMiB // a full transaction
			}
			env.Check(t, work).Assert(t, repeats)
			relay.Stop(t)
			env.Check(t, work).Assert(t, repeats)
			if stored := storedPosition(t, env); stored.End != confirmedLSN(t, env) {
				t.Errorf("%s is stored, %s confirmed", stored.End, confirmedLSN(t, env))
			}
		})
	}
}
