package sink

import (
	"testing"
	"time"

	"github.com/walpost/walpost/decoder"
)

// TestLatency: the latency of an event ends with the brokers' answer to it, not with one before,
// however long ago that was.
func TestLatency(t *testing.T) {
	t.Parallel()
	for name, setup := range deliveries {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			observed := make(chan time.Duration, 1)
			f := setup(t, func(c *Config) { c.Observe = func(latency time.Duration) { observed <- latency } })
			for i := range 3 {
				time.Sleep(100 * time.Millisecond) // without any answer
				committed := time.Now()
				txn := Transaction{Timeline: 1, Commit: uint64(i + 1), Time: committed.UnixMicro() - epochMicros}
				e := &decoder.Event{ID: []byte("1"), Key: []byte("k"), AggregateType: []byte("orders")}
				if err := f.sink.Produce(e, txn, &mark{}, f.position(i+1)); err != nil {
					t.Fatal(err)
				}
				if latency := <-observed; latency < 0 || latency > time.Since(committed) {
					t.Errorf("event %d has a latency of %s, %s after its commit", i, latency, time.Since(committed))
				}
				for f.sink.Held() {
					<-f.room
				}
			}
		})
	}
}

// TestLoneRecordDoesNotLinger: with nothing else in flight, a record does not wait for others.
func TestLoneRecordDoesNotLinger(t *testing.T) {
	t.Parallel()
	f := setup(t, func(c *Config) { c.Linger = time.Minute })
	f.mustProduce("orders", "k", "0", 1)
	f.mustFlush() // the client knows the topic from here on
	f.mustProduce("orders", "k", "1", 1)
	f.waitDone(f.marks[1])
}
