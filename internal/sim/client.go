package sim

import (
	"cmp"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/checkpoint"
)

// client makes the promises of [kgo.Client] to a sink: records of a partition in order, each
// promise once, retries without end for what is an outage, and for a record that is refused: a line
// in the log, the failure of everything that is buffered for its partition, and readiness for what
// comes next. It writes through the connections of the sink's dialer, so that the sink can keep it
// from that.
type client struct {
	k      *kafka
	by     *instance
	id     string // transactional id; empty = none
	log    kgo.Logger
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu       sync.Mutex
	buffers  map[*partition]*buffer
	buffered int
	idle     chan struct{} // closed with the next moment without buffered records
	epoch    int16
	inTxn    bool
	conn     net.Conn
}

type buffer struct {
	records []promised
	sending bool
}

type promised struct {
	r       *kgo.Record
	promise func(*kgo.Record, error)
	age     time.Duration // of its timestamp
}

// newClient reads what it needs of the options from a real client that never connects.
func newClient(k *kafka, by *instance, opts ...kgo.Opt) (*client, error) {
	actual, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	defer actual.Close()
	c := &client{k: k, by: by, buffers: map[*partition]*buffer{}, idle: make(chan struct{})}
	c.id, _ = actual.OptValue(kgo.TransactionalID).(string)
	c.log, _ = actual.OptValue(kgo.WithLogger).(kgo.Logger)
	c.dial, _ = actual.OptValue(kgo.Dialer).(func(ctx context.Context, network, addr string) (net.Conn, error))
	if c.log == nil || c.dial == nil {
		return nil, errors.New("the options of the client have no logger or no dialer")
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

func (c *client) Produce(_ context.Context, r *kgo.Record, promise func(*kgo.Record, error)) {
	if r.Timestamp.IsZero() {
		r.Timestamp = time.Now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.k.states
	if r.Topic != stateTopic {
		p = c.k.partitionOf(string(r.Key))
	}
	b := c.buffers[p]
	if b == nil {
		b = &buffer{}
		c.buffers[p] = b
	}
	b.records = append(b.records, promised{r, promise, time.Since(r.Timestamp)})
	c.buffered++
	if !b.sending {
		b.sending = true
		c.work.Go(func() { c.send(p, b) })
	}
}

// send sends what is buffered for a partition until there is nothing.
func (c *client) send(p *partition, b *buffer) {
	for wait(c.ctx, c.k.pause(3*time.Millisecond)) {
		c.mu.Lock()
		if len(b.records) == 0 {
			b.sending = false
			c.mu.Unlock()
			return
		}
		epoch := c.epoch
		c.k.mu.Lock()
		n := min(len(b.records), 1+c.k.random.IntN(8))
		c.k.mu.Unlock()
		batch := b.records[:n]
		c.mu.Unlock()
		if !c.request() || !c.try(p, b, batch, epoch) {
			if !wait(c.ctx, 250*time.Millisecond) {
				break
			}
		}
	}
	c.mu.Lock()
	rest := b.records
	b.records, b.sending = nil, false
	c.mu.Unlock()
	for _, r := range rest {
		c.promise(r, kgo.ErrClientClosed)
	}
}

// request writes a request; false means that it did not get out.
func (c *client) request() bool {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		var err error
		if conn, err = c.dial(c.ctx, "tcp", "broker:9092"); err != nil {
			return false
		}
		c.mu.Lock()
		c.conn = conn
		c.mu.Unlock()
	}
	_, err := conn.Write([]byte{0})
	return err == nil && !c.by.isDead()
}

// try has a batch appended, or refused. False means that it has to be sent again.
func (c *client) try(p *partition, b *buffer, batch []promised, epoch int16) bool {
	entries := make([]*entry, len(batch))
	var refused error
	for i, r := range batch {
		entries[i] = c.entry(r.r)
		entries[i].age = r.age
		refused = cmp.Or(refused, c.poison(entries[i].id))
	}
	c.k.mu.Lock()
	if !c.k.available(p) || c.by.isDead() {
		c.k.mu.Unlock()
		return false
	}
	if kerr.IsRetriable(refused) && !errors.Is(refused, kerr.CorruptMessage) { // the client makes that exception
		c.k.mu.Unlock()
		return false
	}
	err := refused
	if err == nil {
		err = c.k.append(p, entries, c.id, epoch)
	}
	c.k.mu.Unlock()
	if !wait(c.ctx, c.k.pause(10*time.Millisecond)) || c.by.isDead() {
		return true // nobody hears the answer
	}
	c.mu.Lock()
	done := batch
	if err != nil {
		c.log.Log(kgo.LogLevelInfo, "batch in a produce request failed", "err", err)
		done = b.records
	}
	b.records = b.records[len(done):]
	done = append([]promised(nil), done...)
	c.mu.Unlock()
	if err == nil {
		c.keep(done, nil)
		return true
	}
	c.work.Go(func() { // promises run later, and what is produced meanwhile is sent meanwhile
		wait(c.ctx, c.k.pause(5*time.Millisecond))
		c.keep(done, err)
	})
	return true
}

func (c *client) keep(promises []promised, err error) {
	for _, r := range promises {
		c.promise(r, err)
	}
}

func (c *client) poison(id string) error {
	c.k.mu.Lock()
	defer c.k.mu.Unlock()
	return c.k.poison[id]
}

// promise counts a record as flushed once its promise has returned.
func (c *client) promise(r promised, err error) {
	r.promise(r.r, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buffered--; c.buffered == 0 {
		close(c.idle)
		c.idle = make(chan struct{})
	}
}

func (c *client) entry(r *kgo.Record) *entry {
	e := &entry{by: c.by}
	if r.Topic == stateTopic {
		state, err := checkpoint.DecodeState(r.Value)
		if err != nil {
			panic(err)
		}
		e.state = &state
		return e
	}
	for _, h := range r.Headers {
		switch h.Key {
		case "id":
			e.id = strings.Clone(string(h.Value))
		case "pos":
			e.pos = strings.Clone(string(h.Value))
		}
	}
	return e
}

func (c *client) Flush(ctx context.Context) error {
	for {
		c.mu.Lock()
		idle, n := c.idle, c.buffered
		c.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *client) Close() {
	c.cancel()
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
	c.work.Wait()
}
