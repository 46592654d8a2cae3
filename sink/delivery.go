package sink

import (
	"context"
	"fmt"

	"github.com/walpost/walpost/checkpoint"
)

// delivery is how records reach the brokers and when an event counts as published. There are two.
type delivery interface {
	// send gives a record to the client, or keeps it until the client may have it, and waits with one that has to be alone until it
	// is. pos is how far the stream is with it.
	send(f *flight, pos checkpoint.Position)
	// confirmed says that the brokers have a record.
	confirmed(f *flight)
	// failed says that a record that was sent has failed, and the sink with it.
	failed()
	// reached says how far the stream is, without an event.
	reached(pos checkpoint.Position)
	// begin takes over from whoever produced for this source before.
	begin(ctx context.Context) error
	// start says where the stream begins. Nothing was sent before.
	start(pos checkpoint.Position, state Encode)
	// save stores a position after everything that was sent before it is published.
	save(ctx context.Context, state checkpoint.State) error
	// flush returns when everything that was sent is published.
	flush(ctx context.Context) error
	// close ends what runs beside the client.
	close()
}

// Encode returns the record of the state topic for a position. Any goroutine calls it.
type Encode func(checkpoint.Position) ([]byte, error)

// atLeastOnce counts an event as published once the brokers have its record. Positions are stored apart from it.
type atLeastOnce struct {
	s     *Sink
	store Store
}

// Store keeps positions.
type Store interface {
	Save(ctx context.Context, state checkpoint.State) error
}

func (d atLeastOnce) send(f *flight, _ checkpoint.Position) {
	if f.alone() && (d.s.client.Flush(d.s.ctx) != nil || d.s.Err() != nil) {
		return // one before it failed, or the sink is being closed
	}
	lone := d.s.cfg.Linger > 0 && d.s.inFlight.events.Load() == 1 // asked before: the client may be done with it at any moment
	d.s.client.Produce(d.s.ctx, &f.record, f.promise)
	if lone {
		// Nothing else is in flight whose answer could bring company for it in the meantime. The context has ended, so this only ends
		// the client's wait.
		_ = d.s.client.Flush(ended)
	}
}

// ended is a context that has ended.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

func (d atLeastOnce) confirmed(f *flight) { d.s.published(f) }

func (d atLeastOnce) failed() {}

func (d atLeastOnce) reached(checkpoint.Position) {}

func (d atLeastOnce) begin(context.Context) error { return nil }

func (d atLeastOnce) start(checkpoint.Position, Encode) {}

func (d atLeastOnce) save(ctx context.Context, state checkpoint.State) error {
	return d.store.Save(ctx, state)
}

func (d atLeastOnce) flush(ctx context.Context) error {
	if err := d.s.client.Flush(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

func (d atLeastOnce) close() {}
