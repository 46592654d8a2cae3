package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
)

// errMoved says that the position or the slot changed between the look and the hold: look again.
var errMoved = errors.New("the position was moved by another relay meanwhile")

// loadTimeout bounds one attempt to read the state topic.
const loadTimeout = 20 * time.Second

// resume connects, takes the slot, and returns a session that is ready to stream. What it decides on before it holds
// the slot is only a guess; it looks again afterwards, when nobody else can move it.
func (r *Relay) resume(ctx context.Context) (*session, error) {
	guess, err := cdc.Inspect(ctx, r.cfg.CDC)
	if err != nil {
		return nil, err
	}
	if err := guess.Check(r.cfg.CDC); err != nil {
		return nil, err
	}
	if guess.Slot.Active {
		return nil, fmt.Errorf("slot %q: %w (pid %d)", r.cfg.CDC.Slot, cdc.ErrSlotInUse, guess.Slot.ActivePID)
	}
	conn, err := cdc.Connect(ctx, r.cfg.CDC)
	if err != nil {
		return nil, err
	}
	s, err := r.take(ctx, conn, guess)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func (r *Relay) take(ctx context.Context, conn *cdc.Conn, guess cdc.View) (*session, error) {
	if err := r.open(conn.System); err != nil {
		return nil, err
	}
	wanted, err := r.position(ctx, conn, guess)
	var restored *checkpoint.RestoredError
	if errors.As(err, &restored) {
		// Another relay may have moved on since the look: only a newer one can tell.
		again, lookErr := cdc.Inspect(ctx, r.cfg.CDC)
		if lookErr != nil {
			return nil, lookErr
		}
		if again.WALEnd >= restored.Stored {
			return nil, errMoved
		}
	}
	if err != nil {
		return nil, err
	}
	binary := r.wantsBinary(guess)
	stream, err := conn.Start(ctx, wanted.Position.End, binary)
	if err != nil {
		return nil, err
	}
	held, err := cdc.Inspect(ctx, r.cfg.CDC)
	if err != nil {
		return nil, err
	}
	if r.seen != nil {
		guess = *r.seen // what was altered between two sessions counts as well
	}
	if err := held.CheckSince(r.cfg.CDC, guess); err != nil {
		return nil, err
	}
	start, err := r.position(ctx, conn, held)
	if err != nil {
		return nil, err
	}
	if start != wanted || binary != r.wantsBinary(held) {
		return nil, errMoved
	}
	r.logStart(start, conn.History)
	s := &session{
		r: r, log: r.log, history: conn.History, stream: stream, out: r.out,
		decoder:   decoder.New(r.decoderConfig()),
		watermark: checkpoint.NewWatermark(start.Position),
		start:     start.Position, fresh: start.First,
		hurry: make(chan struct{}, 1), look: make(chan struct{}, 1),
	}
	s.trusted.init(stream, start.Position.End, held)
	return s, nil
}

// position reads the stored position and decides where to start. A position of this process may be further than the
// stored one: the last write may have failed with the last session.
func (r *Relay) position(ctx context.Context, conn *cdc.Conn, view cdc.View) (checkpoint.Start, error) {
	load, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	state, stored, err := r.store.Load(load)
	if err != nil {
		return checkpoint.Start{}, &kafkaError{err}
	}
	if r.last.End != 0 && (!stored || state.Before(r.last)) {
		state, stored = r.last, true
	}
	return checkpoint.Resume(state, stored, checkpoint.Server{
		Slot: r.cfg.CDC.Slot, ConfirmedFlush: view.Slot.Confirmed(), WALEnd: view.WALEnd,
		Timeline: conn.History.Current(), Ended: conn.History.Ended,
	})
}

func (r *Relay) logStart(start checkpoint.Start, history cdc.History) {
	if start.Lost != 0 {
		r.log.Warn().Stringer("lsn", start.Position.End).Stringer("published_until", start.Lost).Uint32("timeline", history.Current()).
			Msg("failover: events between these LSNs were published, and the new primary does not know them; going on from where its timeline began")
	}
	event := r.log.Info().Str("slot", r.cfg.CDC.Slot).Str("publication", r.cfg.CDC.Publication).Stringer("lsn", start.Position.End)
	if start.First {
		event.Msg("streaming: no stored position for this slot, its own was adopted")
		return
	}
	event.Msg("streaming")
}

func (r *Relay) decoderConfig() decoder.Config {
	cfg := decoder.Config{Columns: r.cfg.Columns, Extra: r.cfg.Topic.Extra()}
	for _, t := range r.cfg.CDC.Tables {
		cfg.Tables = append(cfg.Tables, decoder.Table{Schema: t.Schema, Name: t.Name})
	}
	return cfg
}

const byteaOID = 17

// wantsBinary reports whether columns should come in their binary form: the text form doubles a bytea, and the server
// cannot send one of half a gigabyte in it at all. Only if every wanted column has a binary form that we read.
func (r *Relay) wantsBinary(view cdc.View) bool {
	wanted := map[string]bool{}
	for _, c := range r.cfg.CDC.Columns {
		wanted[c] = true
	}
	bytea := false
	for _, t := range view.Tables {
		for _, c := range t.Columns {
			if wanted[c.Name] && !decoder.BinarySafe(c.Type) {
				return false
			}
			bytea = bytea || (c.Name == columnName(r.cfg.Columns, "payload") && c.Type == byteaOID)
		}
	}
	return bytea
}

// eventColumns are the columns that events are made of, as the tables name them.
func eventColumns(mapping map[string]string, extra []string) []string {
	var names []string
	for _, logical := range []string{"id", "aggregatetype", "aggregateid", "type", "payload", "headers"} {
		names = append(names, columnName(mapping, logical))
	}
	return append(names, extra...)
}

func columnName(mapping map[string]string, logical string) string {
	if own, ok := mapping[logical]; ok {
		return own
	}
	return logical
}
