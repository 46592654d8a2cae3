package sink

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
)

// TestReasonNamesThePartition: what the client says in its log of a partition that the brokers do
// not take events for is the reason why events wait, for as long as it is so. A client that says it
// in other words fails this test.
func TestReasonNamesThePartition(t *testing.T) {
	t.Parallel()
	for _, answer := range []*kerr.Error{
		kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut, kerr.UnknownServerError,
		kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.UnknownTopicOrPartition,
	} {
		t.Run(answer.Message, func(t *testing.T) {
			t.Parallel()
			f := setup(t, nil, kfake.SeedTopics(1, "bad", "good"))
			heal := f.answer("bad", answer.Code)
			f.sink.Watch(true)
			f.mustProduce("bad", "k", "e1", 1)
			f.mustProduce("good", "k", "e2", 1)
			f.waitReason(`waiting for topic "bad", partition 0: ` + answer.Error())
			f.waitDone(f.marks[1])
			f.mustProduce("good", "k", "e3", 1)
			f.waitDone(f.marks[2])
			f.waitReason(`waiting for topic "bad", partition 0: ` + answer.Error()) // still
			heal()
			f.mustFlush()
			deadline := time.Now().Add(5 * time.Second) // the client logs behind the promises
			for f.sink.trouble.reason() != "" && time.Now().Before(deadline) {
				time.Sleep(time.Millisecond)
			}
			if reason := f.sink.trouble.reason(); reason != "" {
				t.Errorf("all is published, and the reason is still %q", reason)
			}
		})
	}
}

// TestTrouble: lines of the client's log, and what remains of them.
func TestTrouble(t *testing.T) {
	t.Parallel()
	tr := &trouble{}
	say := func(to string) { tr.hear(produced, []any{"broker", "1", producedTo, to}) }
	want := func(reason string) {
		t.Helper()
		if got := tr.reason(); got != reason {
			t.Errorf("the reason is %q, want %q", got, reason)
		}
	}
	say("a[0{retrying@-1,2(NO: never)}]")
	want("") // nobody watches
	tr.watch(true)
	say("a.b[3{retrying@-1,2(NO: never (yet))}, 10{5=>7}], c[0{retrying@-1,1(AH: x)}]")
	want(`waiting for topic "a.b", partition 3 (and 1 more): NO: never (yet)`)
	say("a.b[3{skipped@5=>7}, 4{err@-1,1(BAD: x)}, 5{move:1:2@-1,1}]")
	want(`waiting for topic "a.b", partition 3 (and 1 more): NO: never (yet)`)
	say("x[, , a.b[3{")
	say("")
	say("c[1{7=>8}, 0{7=>9}], a.b[3{5=>7}]")
	want("")
	tr.hear(loadFailed, []any{"broker", "1", "topic", "d", "partition", int32(2), "err", kerr.LeaderNotAvailable})
	want(`waiting for topic "d", partition 2: ` + kerr.LeaderNotAvailable.Error())
	for i := range int32(3 * troubles) {
		tr.set("e", fmt.Sprint(i), "no")
	}
	if n := len(tr.answers); n != troubles {
		t.Errorf("%d are remembered, want %d", n, troubles)
	}
	tr.watch(false)
	want("")
}
