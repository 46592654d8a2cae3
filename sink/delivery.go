package sink

import (
	"context"
	"fmt"

	"github.com/walpost/walpost/checkpoint"
)

// delivery is how records reach the brokers and when an event counts as published. There are two.
//
// begin and start come first. Then the producer calls send and reached, in the order of the stream;
// the promises call confirmed and failed; any goroutine calls save and flush. A delivery calls
// Sink.published once for each event, in any order.
type delivery interface {
	// begin fences the former producer of this source.
	begin(ctx context.Context) error
	// start says where the stream begins.
	start(pos checkpoint.Position, state Encode)
	// send gives a record to the client, or keeps it until the client may have it. An event that
	// has to be alone waits until nothing else is in flight, or in its transaction. pos is how far
	// the stream is with it.
	send(f *flight, pos checkpoint.Position)
	// reached says how far the stream is, without an event.
	reached(pos checkpoint.Position)
	// confirmed says that the brokers have a record.
	confirmed(f *flight)
	// failed says that a record that was sent has failed, and the sink with it.
	failed()
	// save stores a position; everything before it is published.
	save(ctx context.Context, state checkpoint.State) error
	// flush returns when everything that was sent is published.
	flush(ctx context.Context) error
	// close ends what runs beside the client.
	close()
}

// Encode returns the record of the state topic for a position. Any goroutine calls it.
type Encode func(checkpoint.Position) ([]byte, error)

// atLeastOnce counts an event as published once the brokers have its record. Positions are stored
// by themselves.
type atLeastOnce struct {
	s     *Sink
	store Store
}

// Store stores positions.
type Store interface {
	Save(ctx context.Context, state checkpoint.State) error
}

func (d atLeastOnce) send(f *flight, _ checkpoint.Position) {
	if f.alone() && (d.s.client.Flush(d.s.ctx) != nil || d.s.Err() != nil) {
		return // one before it failed, or the sink is being closed
	}
	// Asked before Produce: the client may be done with the record at any moment.
	lone := d.s.cfg.Linger > 0 && d.s.inFlight.events.Load() == 1
	d.s.client.Produce(d.s.ctx, &f.record, f.promise)
	if lone {
		// A record lingers for others to share its request. With nothing else in flight that only
		// costs time. The context has ended, so this does no more than end the linger.
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
