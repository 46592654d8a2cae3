package sink

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestNothingPassesARefusedEvent produces on after the brokers have refused an event and before its
// promise has run: nothing of it may reach the partition.
func TestNothingPassesARefusedEvent(t *testing.T) {
	t.Parallel()
	f := setup(t, nil)
	f.refuse("event-500-", kerr.PolicyViolation.Code)
	failed, produced := make(chan struct{}), make(chan struct{})
	promise, first := f.sink.promise, sync.Once{}
	f.sink.promise = func(r *flight, err error) {
		if err != nil {
			first.Do(func() { close(failed) })
			<-produced
		}
		promise(r, err)
	}
	for i := range 501 {
		f.mustProduce("orders", "k", fmt.Sprintf("event-%d-", i), 20)
	}
	<-failed
	for i := range 100 {
		f.mustProduce("orders", "k", fmt.Sprintf("event-%d-", 501+i), 20)
	}
	// Without the gate these are on the partition now: nothing else holds them back.
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_ = f.sink.client.Flush(ctx)
	close(produced)
	var refused *EventError
	began := time.Now()
	if err := f.flush(); !errors.As(err, &refused) || !errors.Is(err, kerr.PolicyViolation) ||
		refused.Topic != "orders" || refused.Reason != "refused" {
		t.Fatalf("Flush = %v, want the refusal", err)
	}
	if waited := time.Since(began); waited > 5*afterFailure {
		t.Errorf("Flush waited %s for what the gate keeps back", waited)
	}
	if err := f.produce("orders", "k", "later", 20); !errors.As(err, &refused) {
		t.Fatalf("Produce = %v, want the refusal", err)
	}
	got := f.ids("orders")[0]
	for i, id := range got {
		if want := fmt.Sprintf("event-%d-", i); id != want || i >= 500 {
			t.Fatalf("record %d is %s: an event was published past the refused one", i, id)
		}
	}
	for i, m := range f.marks {
		if m.done.Load() != 0 && i >= len(got) {
			t.Fatalf("event %d is marked as done and was not published", i)
		}
	}
}

// TestTheGateShutsBeforeThePromise guards what the gate relies on: that the client logs a failed
// batch before its promises run. If a new version of the client says it in other words, this is
// where to look.
func TestTheGateShutsBeforeThePromise(t *testing.T) {
	t.Parallel()
	f := setup(t, nil)
	f.refuse("bad", kerr.InvalidRecord.Code)
	shut := make(chan bool, 1)
	promise := f.sink.promise
	f.sink.promise = func(r *flight, err error) {
		if err != nil {
			select {
			case <-f.sink.gate.shut:
				shut <- true
			default:
				shut <- false
			}
		}
		promise(r, err)
	}
	f.mustProduce("orders", "k", "bad", 1)
	if !<-shut {
		t.Fatalf("the client did not log %q before it ran the promise", batchFailed)
	}
}

// TestTheGateShutsWhenRecordsFail: the client fails records not only because a batch was refused.
// Whatever it is, the gate shuts before the promises run.
func TestTheGateShutsWhenRecordsFail(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(f *fixture){
		"topic forbidden": func(f *fixture) {
			f.refuse("bad", kerr.NotLeaderForPartition.Code) // the client asks for the topic again
			f.cluster.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
				f.cluster.KeepControl()
				return denyTopics(req, kerr.TopicAuthorizationFailed.Code), nil, true
			})
		},
		"producer forbidden": func(f *fixture) {
			f.cluster.ControlKey(int16(kmsg.InitProducerID), func(req kmsg.Request) (kmsg.Response, error, bool) {
				resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
				resp.ErrorCode = kerr.ClusterAuthorizationFailed.Code
				return resp, nil, true
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, nil)
			if name == "topic forbidden" {
				f.mustProduce("orders", "k", "first", 1)
				f.mustFlush()
			}
			fault(f)
			shut := make(chan bool, 1)
			promise := f.sink.promise
			f.sink.promise = func(r *flight, err error) {
				if err != nil {
					select {
					case <-f.sink.gate.shut:
						shut <- true
					default:
						shut <- false
					}
				}
				promise(r, err)
			}
			f.mustProduce("orders", "k", "bad", 1)
			select {
			case before := <-shut:
				if !before {
					t.Fatal("the promise of a record that failed ran before the gate was shut")
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the record has not failed: this test proves nothing")
			}
			<-f.sink.Failed()
			var refused *EventError
			if err := f.sink.Err(); !errors.As(err, &refused) || refused.Outage || refused.Reason != "not_authorized" {
				t.Fatalf("the error is %+v", f.sink.Err())
			}
		})
	}
}
