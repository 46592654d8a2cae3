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

// balancer is a load balancer before the brokers: while they are away it accepts connections and
// closes them at once.
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

// TestBalancerWithoutABackend: connections that open and end at once are an outage, not a refusal
// of the event.
func TestBalancerWithoutABackend(t *testing.T) {
	t.Parallel()
	b := newBalancer(t)
	f := setup(t, func(c *Config) { c.Dial = b.dial }, kfake.SeedTopics(16, "orders"))
	f.mustProduce("orders", "k", "0", 10)
	f.mustFlush()
	b.lose()
	for i := range 120 { // applications go on; the client gives up after some loads of its metadata
		if err := f.produce("orders", fmt.Sprint(i), fmt.Sprint(1+i), 10); err != nil {
			t.Fatalf("the outage became permanent: %v", err)
		}
		time.Sleep(100 * time.Millisecond) // the outage lasts
	}
	b.away.Store(false)
	f.mustFlush()
	if got := f.records("orders"); len(got) != 121 {
		t.Fatalf("%d records of 121", len(got))
	}
}

// TestAnotherSinkFollows: an error that is no word on the event ends the client, and another one
// publishes the event. The counts go on.
func TestAnotherSinkFollows(t *testing.T) {
	t.Parallel()
	f := setup(t, nil)
	f.mustProduce("orders", "k", "first", 1)
	f.mustFlush()
	f.refuse("second", kerr.SaslAuthenticationFailed.Code)
	f.mustProduce("orders", "k", "second", 1)
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
	f = f.another(func(c *Config) { c.Before = f.sink })
	f.mustProduce("orders", "k", "third", 1)
	f.mustFlush()
	if st := f.sink.Stats(); st.Published["orders"] != 2 || st.Errors["outage"] != 1 || st.Events != 0 {
		t.Fatalf("the counts do not go on: %+v", st)
	}
}
