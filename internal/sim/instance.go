package sim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/internal/relay"
	"github.com/walpost/walpost/sink"
)

// maxInFlight is the bound of a relay, in bytes: a few dozen events.
const maxInFlight = 32 << 10

// instance is one process of a relay.
type instance struct {
	n     int
	w     *world
	relay *relay.Relay
	stop  context.CancelFunc
	ended chan struct{}
	err   error // why it ended, once it has
	log   syncBuffer

	stopped bool // was told to stop

	mu    sync.Mutex
	dead  bool // killed: nothing it does has an effect any more
	conns []net.Conn
}

// syncBuffer is written by the relay and read by the test.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a relay.
func (w *world) start() *instance {
	i := &instance{n: len(w.instances), w: w, ended: make(chan struct{})}
	pg := w.settings.Copy()
	pg.DialFunc = i.dial
	pg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	host, port, _ := net.SplitHostPort(w.pg.addr)
	pg.Host = host
	_, _ = fmt.Sscan(port, &pg.Port)
	log := zerolog.New(&i.log).Level(zerolog.InfoLevel).Hook(zerolog.HookFunc(func(e *zerolog.Event, _ zerolog.Level, _ string) {
		e.Dur("t", time.Since(w.began))
	}))
	cfg := relay.Config{
		CDC: cdc.Config{
			Postgres: pg, Slot: "walpost", Publication: "walpost", Tables: []cdc.Table{{Schema: "public", Name: "outbox"}},
			Columns: []string{"id", "aggregatetype", "aggregateid", "payload"}, Log: log,
		},
		Topic: w.template, StateTopic: stateTopic, MaxInFlight: maxInFlight, Linger: 2 * time.Millisecond,
		ExactlyOnce: w.exactly, Interval: 100 * time.Millisecond, Batch: 16 << 10, DrainTimeout: 5 * time.Second, Log: log,
		Dial:      i.discard,
		NewClient: func(opts ...kgo.Opt) (sink.Client, error) { return newClient(w.kafka, i, opts...) },
		NewStore:  func(string) (relay.Store, error) { return newStore(w.kafka, i), nil },
	}
	i.relay = relay.New(cfg)
	ctx, stop := context.WithCancel(context.Background())
	i.stop = stop
	w.instances = append(w.instances, i)
	go func() {
		defer close(i.ended)
		i.err = i.relay.Run(ctx)
	}()
	return i
}

func (i *instance) isDead() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.dead
}

func (i *instance) running() bool {
	select {
	case <-i.ended:
		return false
	default:
		return true
	}
}

// dial connects the relay to Postgres.
func (i *instance) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if i.isDead() {
		return nil, errRefused
	}
	conn, err := i.w.net.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.dead {
		_ = conn.Close()
		return nil, errRefused
	}
	i.conns = append(i.conns, conn)
	return conn, nil
}

// discard connects the relay to a broker: the requests themselves take another way.
func (i *instance) discard(context.Context, string, string) (net.Conn, error) {
	return blackhole{}, nil
}

type blackhole struct{ net.Conn }

func (blackhole) Write(b []byte) (int, error) { return len(b), nil }
func (blackhole) Close() error                { return nil }

// kill ends a relay as kill -9 does: the connections break, and nothing that it still does has an
// effect.
func (i *instance) kill() {
	i.mu.Lock()
	i.dead = true
	conns := i.conns
	i.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	i.stop()
	<-i.ended
}

// terminate ends a relay as SIGTERM does.
func (i *instance) terminate() error {
	i.stopped = i.running()
	i.stop()
	<-i.ended
	return i.err
}

// halted reports whether a relay has stopped by itself, because an operator must act.
func (i *instance) halted() (*relay.Halt, bool) {
	if i.running() {
		return nil, false
	}
	var halt *relay.Halt
	ok := errors.As(i.err, &halt)
	return halt, ok && !errors.Is(halt, relay.ErrDrain) // that is an answer to SIGTERM
}

func parseSettings() *pgconn.Config {
	cfg, err := pgconn.ParseConfig("postgres://walpost@127.0.0.1:5432/app?sslmode=disable&connect_timeout=5")
	if err != nil {
		panic(err)
	}
	cfg.Fallbacks = nil
	return cfg
}
