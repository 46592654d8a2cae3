package sim

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"time"
)

// network is the network between the relay and its servers. Bytes take a moment that the seed
// decides; nothing is real but the order in which they arrive. Everything that waits does so on a
// channel or a timer, as the virtual clock wants it.
type network struct {
	mu        sync.Mutex
	random    *rand.Rand
	latency   time.Duration // the longest that bytes take, without a fault
	listeners map[string]*listener
	links     map[*link]bool
	nextPort  int
}

func newNetwork(random *rand.Rand) *network {
	return &network{random: random, latency: 2 * time.Millisecond, listeners: map[string]*listener{}, links: map[*link]bool{}, nextPort: 1024}
}

var (
	errCut     = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
)

// listener is an address that servers listen on.
type listener struct {
	n        *network
	addr     *net.TCPAddr
	accepted chan net.Conn
	closed   chan struct{}
	down     bool // refuses connections
}

// listen takes the next free port.
func (n *network) listen(_, _ string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nextPort++
	l := &listener{n: n, addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: n.nextPort}, accepted: make(chan net.Conn, 64), closed: make(chan struct{})}
	n.listeners[l.addr.String()] = l
	return l, nil
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	if l.n.listeners[l.addr.String()] == l {
		delete(l.n.listeners, l.addr.String())
		close(l.closed)
	}
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

// dial connects to a listener.
func (n *network) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	select {
	case <-time.After(n.delay()):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.listeners[addr]
	if l == nil || l.down {
		return nil, errRefused
	}
	k := &link{n: n, addr: addr}
	k.up, k.down = newPipe(n), newPipe(n)
	n.links[k] = true
	client := &conn{link: k, in: k.down, out: k.up, addr: l.addr}
	server := &conn{link: k, in: k.up, out: k.down, addr: l.addr}
	select {
	case l.accepted <- server:
		return client, nil
	default:
		return nil, errRefused
	}
}

// delay is how long some bytes take.
func (n *network) delay() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Duration(n.random.Int64N(int64(n.latency))) + time.Microsecond
}

// upTo is a number below n; more often than not a small one.
func (n *network) upTo(most int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.random.IntN(n.random.IntN(most) + 1)
}

// cut resets the connections to an address: bytes that have not arrived are lost.
func (n *network) cut(addr string) {
	n.mu.Lock()
	var links []*link
	for k := range n.links {
		if k.addr == addr {
			links = append(links, k)
			delete(n.links, k)
		}
	}
	n.mu.Unlock()
	for _, k := range links {
		k.end(errCut)
	}
}

// freeze stops the bytes of the connections to an address for a while; none are lost.
func (n *network) freeze(addr string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	until := time.Now().Add(d)
	for k := range n.links {
		if k.addr == addr {
			k.up.hold(until)
			k.down.hold(until)
		}
	}
}

// refuses connections, or takes them again.
func (n *network) setDown(addr string, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.listeners[addr]; l != nil {
		l.down = down
	}
}

// link is one connection: two pipes.
type link struct {
	n        *network
	addr     string
	up, down *pipe
}

func (k *link) end(err error) {
	k.up.close(err)
	k.down.close(err)
}

// pipe carries bytes one way.
type pipe struct {
	n      *network
	mu     sync.Mutex
	chunks []chunk
	last   time.Time // when the last chunk arrives: bytes do not overtake
	held   time.Time
	err    error         // for both sides, once chunks are read
	wake   chan struct{} // the reader reads again
	room   chan struct{} // the writer writes again
	size   int
}

type chunk struct {
	at   time.Time
	data []byte
}

// pipeSize is how many bytes a pipe holds: what the buffers of both sides do.
const pipeSize = 64 << 10

func newPipe(n *network) *pipe {
	return &pipe{n: n, wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (p *pipe) hold(until time.Time) {
	p.mu.Lock()
	p.held = until
	p.mu.Unlock()
	signal(p.wake)
}

// close ends the pipe: behind what it holds, or, with another error than EOF, at any byte of it.
func (p *pipe) close(err error) {
	keep := p.n.upTo(pipeSize)
	p.mu.Lock()
	if p.err == nil {
		p.err = err
	}
	switch {
	case errors.Is(err, io.EOF):
	case errors.Is(err, net.ErrClosed):
		p.chunks = nil // nobody reads it
	default:
		p.truncate(keep)
	}
	p.mu.Unlock()
	signal(p.wake)
	signal(p.room)
}

// truncate lets so many bytes arrive at once, and no more. The mutex is held.
func (p *pipe) truncate(keep int) {
	p.held = time.Time{}
	for i := range p.chunks {
		c := &p.chunks[i]
		c.at = time.Time{}
		c.data = c.data[:min(len(c.data), keep)]
		if keep -= len(c.data); keep == 0 {
			p.chunks = p.chunks[:i+1]
			break
		}
	}
	for n := len(p.chunks); n > 0 && len(p.chunks[n-1].data) == 0; n-- {
		p.chunks = p.chunks[:n-1]
	}
}

// write takes as much as there is room for, and returns how much that is.
func (p *pipe) write(b []byte) (int, error) {
	delay := p.n.delay()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return 0, errCut
	}
	n := min(len(b), pipeSize-p.size)
	if n == 0 {
		return 0, nil
	}
	at := time.Now().Add(delay)
	if at.Before(p.last) {
		at = p.last
	}
	p.last = at
	p.chunks = append(p.chunks, chunk{at, append([]byte(nil), b[:n]...)})
	p.size += n
	signal(p.wake)
	return n, nil
}

// read returns what has arrived, or when to read again.
func (p *pipe) read(b []byte) (n int, wait time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.chunks) == 0 {
		return 0, -1, p.err
	}
	now := time.Now()
	due := p.chunks[0].at
	if due.Before(p.held) {
		due = p.held
	}
	if due.After(now) {
		return 0, due.Sub(now), nil
	}
	n = copy(b, p.chunks[0].data)
	p.chunks[0].data = p.chunks[0].data[n:]
	if len(p.chunks[0].data) == 0 {
		p.chunks = p.chunks[1:]
	}
	p.size -= n
	signal(p.room)
	return n, 0, nil
}

// forget takes a link that was closed off the books.
func (n *network) forget(k *link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.links, k)
}
