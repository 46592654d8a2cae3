package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/walpost/walpost/internal/config"
)

// Options say what to show and where.
type Options struct {
	// Config holds the settings of the relay. An empty PostgresURL or no KafkaBrokers: that server
	// is embedded. The names in it must be those of this package, see [Name].
	Config        config.Config
	PostgresMajor int           // of the embedded Postgres; 0 = any
	Partitions    int           // of each topic that the demo creates
	Rate          float64       // events per second
	Duration      time.Duration // 0 = until ctx ends
	Colors        bool
	Out           io.Writer
}

// Tools are the parts of the program that the demo shows.
type Tools struct {
	// SetUp creates table, publication and slot, and says so, a line per write.
	SetUp func(ctx context.Context, cfg config.Config, out io.Writer) error
	// Relay publishes until ctx ends.
	Relay func(ctx context.Context, cfg config.Config) error
	// Ready asks the relay's HTTP server whether it streams.
	Ready func(ctx context.Context, addr string) bool
}

// Name is the name of the demo's schema, slot and publication. [Table], [Topic] and [StateTopic] go
// with it.
const (
	Name       = "walpost_demo"
	Table      = Name + ".outbox"
	Topic      = "demo.{aggregatetype}"
	StateTopic = "demo.walpost.state"
)

// topics are what Topic becomes.
var topics = []string{"demo.order", "demo.customer", "demo.payment"}

const (
	// readyTimeout bounds the time from the start of the relay until it streams.
	readyTimeout = 30 * time.Second
	// stragglers is how long the end waits for events that are committed and have not arrived.
	stragglers = 10 * time.Second
)

// errMissing says that the demo failed to show what it is for.
var errMissing = errors.New("the records that arrived are not the events that were committed")

// Run shows events until ctx ends or the duration is over, and leaves nothing behind. The end of
// ctx is not an error: an error is a failure, or that the records which arrived are not the events
// which were committed.
func Run(ctx context.Context, opts Options, tools Tools) error {
	playing, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s := &stage{opts: opts, tools: tools, screen: newScreen(opts.Out, opts.Colors, stop)}
	s.screen.opening()
	err := s.build(playing)
	if err == nil {
		err = s.play(playing, stop)
	}
	// The caller's end must not keep the stage from being cleared.
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	cleared := s.clear(closing)
	if broken := s.screen.err(); broken != nil {
		return errors.Join(broken, cleared) // nobody reads the output any more
	}
	if s.ledger == nil || s.ledger.committed() == 0 {
		if ctx.Err() == nil {
			return errors.Join(err, cleared)
		}
		s.screen.line("\nStopped before the first event.") // an error that the stop caused is not a failure
		return cleared
	}
	total := s.ledger.total()
	s.screen.summary(total)
	if err == nil && !total.good() {
		err = errMissing
	}
	if err = errors.Join(err, cleared); err == nil {
		s.screen.nextSteps()
	}
	return err
}

// play runs relay, consumer and service until one of them or ctx ends. It stops them in this order:
// service, relay, consumer.
func (s *stage) play(ctx context.Context, stop context.CancelCauseFunc) error {
	relaying, stopRelay := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRelay()
	relayed := make(chan error, 1)
	go func() {
		err := s.tools.Relay(relaying, s.cfg)
		stop(err)
		relayed <- err
	}()
	reading, stopReading := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReading()
	read := make(chan error, 1)
	go func() {
		err := s.consumer.run(reading)
		stop(err)
		read <- err
	}()

	var err error
	if s.ready(ctx) {
		err = s.serve(ctx)
		await(relaying, stragglers, func() bool { return s.ledger.missing() == 0 || len(relayed) > 0 })
	}
	stopRelay()
	err = errors.Join(err, <-relayed)
	if s.ledger.committed() > 0 {
		err = errors.Join(err, s.consumer.readToEnd(reading))
	}
	stopReading()
	return errors.Join(err, <-read)
}

// ready waits until the relay streams, so that the first event does not count the start as its
// latency.
func (s *stage) ready(ctx context.Context) bool {
	if s.cfg.HTTPAddr == "" {
		return ctx.Err() == nil
	}
	return await(ctx, readyTimeout, func() bool { return s.tools.Ready(ctx, s.cfg.HTTPAddr) }) || ctx.Err() == nil
}

// serve plays the order service for as long as it should.
func (s *stage) serve(ctx context.Context) error {
	if s.opts.Duration > 0 {
		limited, cancel := context.WithTimeout(ctx, s.opts.Duration)
		defer cancel()
		ctx = limited
	}
	s.screen.header()
	service := &shop{conn: s.conn, ledger: s.ledger, screen: s.screen}
	if err := service.run(ctx, s.opts.Rate); err != nil {
		return fmt.Errorf("play the order service: %w", err)
	}
	return nil
}

// await asks until the answer is yes; false means that ctx or the time ended first.
func await(ctx context.Context, limit time.Duration, done func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}
