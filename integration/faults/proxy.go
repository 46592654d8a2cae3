package faults

import (
	"math"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy is the line between clients and one TCP server, with the faults that a line can have.
type Proxy struct {
	server   string
	listener net.Listener
	done     chan struct{}
	group    sync.WaitGroup
	cuts     atomic.Int64

	mu      sync.Mutex
	links   map[*link]bool
	latency time.Duration
	rate    int          // bytes per second; 0: no limit
	budget  func() int64 // nil: no limit
	free    [2]time.Time // when each direction of the line has sent what it was given
}

// link is one connection through a Proxy.
type link struct {
	proxy          *Proxy
	client, server net.Conn
	left           atomic.Int64 // bytes until it is cut
	silent         atomic.Bool
}

// The directions of a line.
const (
	toServer = iota
	toClient
)

// StartProxy opens a line to a server, without faults, until the test ends.
func StartProxy(t testing.TB, server string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{server: server, listener: listener, done: make(chan struct{}), links: map[*link]bool{}}
	p.group.Go(p.accept)
	t.Cleanup(func() {
		close(p.done)
		_ = listener.Close()
		p.each((*link).close)
		p.group.Wait()
	})
	return p
}

// Addr is where clients connect.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Shape delays all bytes by a latency in each direction, and lets only so many a second pass in
// each, all connections together. Zero ends it.
func (p *Proxy) Shape(latency time.Duration, rate int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.latency, p.rate = latency, rate
}

// CutAfter gives each connection that comes from now on a number of bytes, in both directions
// together, after which it is cut in two, in the middle of whatever it carries. Nil ends it, for
// connections that are there as well.
func (p *Proxy) CutAfter(budget func() int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.budget = budget
	if budget == nil {
		for l := range p.links {
			l.left.Store(math.MaxInt64)
		}
	}
}

// Cuts is how many connections were cut so far.
func (p *Proxy) Cuts() int { return int(p.cuts.Load()) }

// Silence loses everything that the present connections carry from now on, in both directions, and
// tells neither end. New connections are well. It returns how many are silent now.
func (p *Proxy) Silence() int {
	count := 0
	p.each(func(l *link) { l.silent.Store(true); count++ })
	return count
}

// Break ends the present connections.
func (p *Proxy) Break() { p.each((*link).close) }

// CutNow cuts the present connections in two with the next byte that they carry.
func (p *Proxy) CutNow() { p.each(func(l *link) { l.left.Store(0) }) }

func (p *Proxy) each(f func(*link)) {
	p.mu.Lock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	p.mu.Unlock()
	for _, l := range links {
		f(l)
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		l := &link{proxy: p, client: client, server: server}
		if !p.add(l) {
			l.close()
			return
		}
		p.group.Go(func() { l.pass(toServer, server, client) })
		p.group.Go(func() { l.pass(toClient, client, server) })
	}
}

// add reports false when the proxy is closed.
func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		return false
	default:
	}
	l.left.Store(math.MaxInt64)
	if p.budget != nil {
		l.left.Store(p.budget())
	}
	p.links[l] = true
	return true
}

// carry returns when a chunk has left the sender and when it arrives.
func (p *Proxy) carry(direction, size int) (sent, arrives time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent = time.Now()
	if p.rate > 0 {
		if p.free[direction].After(sent) {
			sent = p.free[direction]
		}
		sent = sent.Add(time.Duration(size) * time.Second / time.Duration(p.rate))
		p.free[direction] = sent
	}
	return sent, sent.Add(p.latency)
}

// until waits; false means that the proxy is closed.
func (p *Proxy) until(at time.Time) bool {
	wait := time.Until(at)
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.done:
		return false
	}
}

type chunk struct {
	bytes   []byte
	arrives time.Time
}

// pass carries one direction. What the line holds is bounded by time, not by number: by its rate
// and its latency.
func (l *link) pass(direction int, dst, src net.Conn) {
	way := make(chan chunk, 4096)
	l.proxy.group.Go(func() { l.deliver(dst, way) })
	defer close(way)
	for {
		b := make([]byte, 4<<10)
		n, err := src.Read(b)
		if n > 0 {
			sent, arrives := l.proxy.carry(direction, n)
			if !l.proxy.until(sent) {
				return
			}
			select {
			case way <- chunk{b[:n], arrives}:
			case <-l.proxy.done:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// deliver ends with the direction, and ends the connection then, unless it is a silent one.
func (l *link) deliver(dst net.Conn, way <-chan chunk) {
	for c := range way {
		if !l.proxy.until(c.arrives) {
			break
		}
		if l.silent.Load() {
			continue
		}
		if !l.write(dst, c.bytes) {
			break
		}
	}
	if !l.silent.Load() {
		l.close()
	}
	for range way { // whatever the sender had under way
	}
}

// write reports false when the connection has ended, by itself or because it was to be cut here.
func (l *link) write(dst net.Conn, b []byte) bool {
	left := l.left.Add(-int64(len(b)))
	if left >= 0 {
		_, err := dst.Write(b)
		return err == nil
	}
	if rest := left + int64(len(b)); rest > 0 { // the part before the cut
		_, _ = dst.Write(b[:rest]) // it is cut anyway
	}
	l.proxy.cuts.Add(1)
	if rand.IntN(2) == 0 { // a reset instead of an end
		for _, conn := range []net.Conn{l.client, l.server} {
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // else it ends without a reset
			}
		}
	}
	return false
}

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
	l.proxy.mu.Lock()
	delete(l.proxy.links, l)
	l.proxy.mu.Unlock()
}
