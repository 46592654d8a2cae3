package sim

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// conn is one end of a link.
type conn struct {
	link          *link
	in, out       *pipe
	addr          net.Addr
	reads, writes deadline
}

func (c *conn) Read(b []byte) (int, error) {
	for {
		if c.reads.passed() {
			return 0, os.ErrDeadlineExceeded
		}
		n, wait, err := c.in.read(b)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		if wait < 0 {
			wait = time.Hour // until somebody writes
		}
		timer := time.NewTimer(wait)
		select {
		case <-c.in.wake:
		case <-timer.C:
		case <-c.reads.done():
		}
		timer.Stop()
	}
}

func (c *conn) Write(b []byte) (written int, err error) {
	for written < len(b) {
		if c.writes.passed() {
			return written, os.ErrDeadlineExceeded
		}
		n, err := c.out.write(b[written:])
		if err != nil {
			return written, err
		}
		written += n
		if n > 0 {
			continue
		}
		select {
		case <-c.out.room:
		case <-c.writes.done():
		}
	}
	return written, nil
}

// Close ends both directions. The other side still reads what the pipe holds.
func (c *conn) Close() error {
	c.link.n.forget(c.link)
	c.out.close(io.EOF)
	c.in.close(net.ErrClosed)
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.addr }
func (c *conn) RemoteAddr() net.Addr { return c.addr }

func (c *conn) SetDeadline(t time.Time) error {
	c.reads.set(t)
	c.writes.set(t)
	return nil
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.reads.set(t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writes.set(t)
	return nil
}

// deadline ends what waits for it.
type deadline struct {
	mu    sync.Mutex
	at    time.Time
	timer *time.Timer
	c     chan struct{} // closed when the deadline has passed
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	old := d.c
	d.at, d.c = t, make(chan struct{})
	if old != nil {
		select {
		case <-old:
		default:
			close(old) // whoever waits for it asks again
		}
	}
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		c := d.c
		d.timer = time.AfterFunc(wait, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.c == c {
				close(c)
				d.c = nil
			}
		})
	}
}

func (d *deadline) passed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.at.IsZero() && !time.Now().Before(d.at)
}

// done is closed when the deadline passes or is moved.
func (d *deadline) done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.c == nil {
		d.c = make(chan struct{})
	}
	return d.c
}
