package sink

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestUnknownAnswerIsNoEnd: the client sends a batch again that was answered with
// UNKNOWN_SERVER_ERROR or a code that it does not know, in its place. Other partitions go on, and
// nothing is repeated.
func TestUnknownAnswerIsNoEnd(t *testing.T) {
	t.Parallel()
	for _, code := range []int16{kerr.UnknownServerError.Code, 9999} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			f := setup(t, nil, kfake.SeedTopics(1, "bad", "good"))
			heal := f.answer("bad", code)
			for i := range 3 {
				f.mustProduce("bad", "k", fmt.Sprint("bad-", i), 1)
			}
			for i := range 50 {
				f.mustProduce("good", "k", fmt.Sprint("good-", i), 1)
			}
			f.waitDone(f.marks[3:]...)
			if err := f.sink.Err(); err != nil || f.marks[0].done.Load() != 0 {
				t.Fatalf("the event that waits: error %v, published %d times", err, f.marks[0].done.Load())
			}
			heal()
			f.mustFlush()
			bad, good := f.ids("bad")[0], f.ids("good")[0]
			if len(bad) != 3 || len(good) != 50 || bad[0] != "bad-0" {
				t.Errorf("%d and %d records, want 3 and 50, in order", len(bad), len(good))
			}
		})
	}
}

// TestUnknownAnswerForATopic: the client does not give events up for an answer to its request for
// metadata either.
func TestUnknownAnswerForATopic(t *testing.T) {
	t.Parallel()
	f := setup(t, nil, kfake.SeedTopics(1, "orders"))
	f.mustProduce("orders", "k", "e1", 1)
	f.mustFlush()
	moved := f.answer("orders", kerr.NotLeaderForPartition.Code) // so the client asks again
	unknown := f.cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Metadata}, Topic: "orders", Err: kerr.UnknownServerError, Count: -1,
	})
	f.mustProduce("orders", "k", "e2", 1)
	deadline := time.Now().Add(10 * time.Second)
	for unknown.Hits() < 3 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if n, err := unknown.Hits(), f.sink.Err(); n < 3 || err != nil {
		t.Fatalf("asked for the topic %d times, error %v", n, err)
	}
	unknown.Remove()
	moved()
	f.mustFlush()
}

// TestProducerIDIsAskedForWithPauses: the client would ask again at once.
func TestProducerIDIsAskedForWithPauses(t *testing.T) {
	t.Parallel()
	f := setup(t, nil, kfake.SeedTopics(1, "orders"))
	fault := f.cluster.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.InitProducerID}, Err: kerr.UnknownServerError, Count: -1,
	})
	f.mustProduce("orders", "k", "e1", 1)
	began, deadline := time.Now(), time.Now().Add(30*time.Second)
	for fault.Hits() < 4 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if n, took := fault.Hits(), time.Since(began); n < 4 || took < 2*betweenProducers {
		t.Errorf("it was asked for %d times within %s, want a pause of %s between each two", n, took, betweenProducers)
	}
	fault.Remove()
	f.mustFlush()
}

// TestCommitIsNotTriedAgain: nobody knows what became of a commit that was answered with
// UNKNOWN_SERVER_ERROR.
func TestCommitIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	f := exactly(t, nil)
	fault := f.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, Err: kerr.UnknownServerError, Count: -1})
	f.mustProduce("orders", "k", "e1", 1)
	<-f.sink.Failed()
	f.sink.Close()
	var commit *CommitError
	if err := f.sink.Err(); !errors.As(err, &commit) || commit.Refused || commit.Fenced {
		t.Errorf("the error is %v", err)
	}
	if n := fault.Hits(); n != 1 {
		t.Errorf("the transaction was ended %d times, want 1", n)
	}
}
