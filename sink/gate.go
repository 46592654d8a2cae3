package sink

import (
	"context"
	"net"
	"sync"
	"time"
)

// wireGate stops the wire after a permanent error.
//
// When the brokers refuse a batch for good, the client fails what it has buffered for that
// partition and is ready to send what comes next. Promises run later, on a goroutine of their own;
// an event of the same key that is produced in between would be published past the refused one. So
// the gate shuts when the client says in its log that records fail, which it does before it can
// send anything else for their partition. From then on nothing is written to any broker; answers
// are still read.
type wireGate struct {
	shut    chan struct{} // closed: nothing more is written
	release chan struct{} // closed: Write gives up, the client is being closed
	close   func()        // closes shut
	giveUp  func()        // closes release
}

func newWireGate() *wireGate {
	g := &wireGate{shut: make(chan struct{}), release: make(chan struct{})}
	g.close = sync.OnceFunc(func() { close(g.shut) })
	g.giveUp = sync.OnceFunc(func() { close(g.release) })
	return g
}

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// dialer returns dial with connections that the gate can stop.
func (g *wireGate) dialer(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &gatedConn{Conn: conn, gate: g}, nil
	}
}

type gatedConn struct {
	net.Conn
	gate *wireGate
}

func (c *gatedConn) Write(b []byte) (int, error) {
	select {
	case <-c.gate.shut:
		<-c.gate.release
		return 0, net.ErrClosed
	default:
		return c.Conn.Write(b)
	}
}

// What the client logs when it is about to fail what it has buffered of a partition: for a batch
// that the brokers refuse, for a partition that it cannot load (if it says that it will), and for a
// producer ID that it is refused.
const (
	batchFailed    = "batch in a produce request failed"
	loadFailed     = "produce partition load error, bumping error count on first stored batch"
	loadFails      = "will_fail"
	producerFailed = "fatal InitProducerID error, failing all buffered records"
)

// producerRefused is what the client logs before it asks for a producer ID again, which it does at
// once.
const producerRefused = "producer id initialization resulted in retryable error, discarding initialization attempt"

// betweenProducers is the least time between two requests for a producer ID that the brokers have
// not given.
const betweenProducers = 250 * time.Millisecond

// pause holds the caller up, unless the client is being closed.
func (g *wireGate) pause(d time.Duration) {
	select {
	case <-g.release:
	case <-time.After(d):
	}
}

// saysRecordsFail reports whether a line of the client's log says that records fail.
func saysRecordsFail(msg string, keyvals []any) bool {
	switch msg {
	case batchFailed, producerFailed:
		return true
	case loadFailed:
		return keyval(keyvals, loadFails) != false
	}
	return false
}
