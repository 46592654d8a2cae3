package sink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// balancer is a load balancer before the brokers: while they are away it accepts connections and closes them at once.
type balancer struct {
	away   atomic.Bool
	closer net.Listener

	mu   sync.Mutex
	open []net.Conn
}

func newBalancer(t *testing.T) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	return &balancer{closer: l}
}

func (b *balancer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if b.away.Load() {
		addr = b.closer.Addr().String()
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err == nil {
		b.mu.Lock()
		b.open = append(b.open, conn)
		b.mu.Unlock()
	}
	return conn, err
}

func (b *balancer) lose() {
	b.away.Store(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.open {
		_ = c.Close()
	}
}

// TestBalancerWithoutABackend: connections that open and end at once are an outage, not a refusal of the event.
func TestBalancerWithoutABackend(t *testing.T) {
	t.Parallel()
	b := newBalancer(t)
	f := setup(t, func(c *Config) { c.Dial = b.dial }, kfake.SeedTopics(16, "orders"))
	if err := f.produce("orders", "k", "0", 10); err != nil {
		t.Fatal(err)
	}
	if err := f.flush(); err != nil {
		t.Fatal(err)
	}
	b.lose()
	for i := range 120 { // applications go on; the client gives up after some loads of its metadata
		if err := f.produce("orders", fmt.Sprint(i), fmt.Sprint(1+i), 10); err != nil {
			t.Fatalf("the outage became permanent: %v", err)
		}
		time.Sleep(100 * time.Millisecond) // the outage lasts
	}
	b.away.Store(false)
	if err := f.flush(); err != nil {
		t.Fatal(err)
	}
	if got := f.records("orders"); len(got) != 121 {
		t.Fatalf("%d records of 121", len(got))
	}
}

// TestTheGateShutsWhenRecordsFail: the client fails records not only because a batch was refused. Whatever it is, the gate
// shuts before the promises run.
func TestTheGateShutsWhenRecordsFail(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(f *fixture){
		"topic forbidden": func(f *fixture) {
			f.refuse("bad", kerr.NotLeaderForPartition.Code) // so that the client asks for the topic again
			f.cluster.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
				f.cluster.KeepControl()
				return forbidTopics(req), nil, true
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
				if err := f.produce("orders", "k", "first", 1); err != nil {
					t.Fatal(err)
				}
				if err := f.flush(); err != nil {
					t.Fatal(err)
				}
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
			if err := f.produce("orders", "k", "bad", 1); err != nil {
				t.Fatal(err)
			}
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

func forbidTopics(req kmsg.Request) kmsg.Response {
	asked := req.(*kmsg.MetadataRequest)
	resp := asked.ResponseKind().(*kmsg.MetadataResponse)
	for _, t := range asked.Topics {
		topic := kmsg.NewMetadataResponseTopic()
		topic.Topic, topic.TopicID, topic.ErrorCode = t.Topic, t.TopicID, kerr.TopicAuthorizationFailed.Code
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

// TestAnotherSinkFollows: an error that is no word on the event ends the client, and another one publishes the event. The
// counts go on.
func TestAnotherSinkFollows(t *testing.T) {
	t.Parallel()
	f := setup(t, nil)
	if err := f.produce("orders", "k", "first", 1); err != nil {
		t.Fatal(err)
	}
	if err := f.flush(); err != nil {
		t.Fatal(err)
	}
	f.refuse("second", kerr.SaslAuthenticationFailed.Code)
	if err := f.produce("orders", "k", "second", 1); err != nil {
		t.Fatal(err)
	}
	<-f.sink.Failed()
	var given *EventError
	if err := f.sink.Err(); !errors.As(err, &given) || !given.Outage || given.Reason != "outage" {
		t.Fatalf("the error is %+v", f.sink.Err())
	}
	f.sink.Close()
	f.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		return nil, nil, false // the password is the right one again
	})
	cfg := f.sink.cfg
	cfg.Before = f.sink
	after, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	f.sink = after
	if err := f.produce("orders", "k", "third", 1); err != nil {
		t.Fatal(err)
	}
	if err := f.flush(); err != nil {
		t.Fatal(err)
	}
	if st := after.Stats(); st.Published["orders"] != 2 || st.Errors["outage"] != 1 || st.Events != 0 {
		t.Fatalf("the counts do not go on: %+v", st)
	}
}
