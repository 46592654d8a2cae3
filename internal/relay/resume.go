package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
)

// errStale says that the position or the slot changed between the inspection and the moment when
// the slot was held, or that rows are of an earlier shape of the table than the inspection found.
var errStale = errors.New("what the inspection found has changed meanwhile: inspecting again")

// kafkaTimeout bounds one attempt to write the state topic before a session streams.
const kafkaTimeout = 20 * time.Second

// resume connects, takes the slot, and makes the session ready to stream. What it decides on before
// it holds the slot is only a guess; it inspects again afterwards, when nobody else can move the
// slot.
func (s *session) resume(ctx context.Context) error {
	cfg := s.r.cfg.CDC
	guess, err := cdc.Inspect(ctx, cfg)
	if err != nil {
		return err
	}
	if err := guess.Check(cfg); err != nil {
		return err
	}
	if guess.Slot.Active {
		if stop, _ := s.r.unfit(guess); stop != nil && s.walsender == 0 {
			// The rows from before are published by whoever has the slot.
			return fmt.Errorf("%w. What was inserted before is left to pid %d of Postgres, which reads slot %q",
				&unfitError{stop}, guess.Slot.ActivePID, cfg.Slot)
		}
		return &heldError{cfg.Slot, guess.Slot.ActivePID, guess.Slot.ActivePID == s.walsender}
	}
	conn, err := cdc.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	if err := s.take(ctx, conn, guess); err != nil {
		conn.Close()
		return err
	}
	return nil
}

// take takes the slot over conn, fences other producers, and begins where both leave off.
func (s *session) take(ctx context.Context, conn *cdc.Conn, guess cdc.View) error {
	if err := s.open(conn.System); err != nil {
		return err
	}
	s.history = conn.History
	wanted, err := s.position(ctx, guess, s.store.LoadCommitted)
	var gap *checkpoint.GapError
	if errors.As(err, &gap) { // or an open transaction of another relay hides what we have stored
		wanted, err = s.position(ctx, guess, s.store.Load)
	}
	if err != nil {
		return s.outrun(ctx, err)
	}
	binary := s.wantsBinary(guess)
	stream, err := conn.Start(ctx, wanted.start.Position.End, binary)
	if err != nil {
		return err
	}
	s.walsender = int(stream.PID())
	if err := s.fence(ctx); err != nil {
		return err
	}
	view, err := s.inspect(ctx, &cdc.Inspector{}, false)
	if err != nil {
		return err
	}
	found, err := s.position(ctx, view, s.store.Load)
	if err != nil {
		return s.outrun(ctx, err)
	}
	if found.start != wanted.start || binary != s.wantsBinary(view) {
		return errStale
	}
	if err := view.CheckUnaltered(s.r.cfg.CDC, found.publication); err != nil {
		return err
	}
	if err := s.storeStart(ctx, found, view); err != nil {
		return err
	}
	s.logStart(found.start)
	s.warn(view)
	s.begin(stream, found, view)
	return nil
}

// begin makes what a session streams with.
func (s *session) begin(stream *cdc.Stream, found found, view cdc.View) {
	start := found.start.Position
	s.stream, s.decoder = stream, decoder.New(s.r.decoderConfig(view))
	s.watermark = checkpoint.NewWatermark(start, s.r.cfg.MaxInFlight, s.r.room)
	s.start, s.lastStored, s.timeline, s.generation = start, start, found.start.Timeline, found.generation
	s.noteUnfit(view)
	s.confirmable.init(stream, start.End, view)
	s.out.Start(start, func(pos checkpoint.Position) ([]byte, error) { return s.state(pos).Encode(s.source()) })
}

// outrun inspects again where the stored position is not one of the server's: another relay may
// have moved on since the inspection, or after a failover, and only a newer inspection can tell.
// Also while we held the slot: we may have lost it in a pause.
func (s *session) outrun(ctx context.Context, err error) error {
	var restored *checkpoint.RestoredError
	if !errors.As(err, &restored) {
		return err
	}
	again, failed := s.inspect(ctx, &cdc.Inspector{}, false)
	if failed != nil {
		return failed
	}
	if restored.StoredTimeline == restored.Timeline && again.WALEnd >= restored.Stored { // no WAL end makes up for another timeline
		return errStale
	}
	return err
}

// inspect inspects the server that the stream comes from. With an error, what it found must not be
// relied on.
func (s *session) inspect(ctx context.Context, inspector *cdc.Inspector, keep bool) (cdc.View, error) {
	cfg := s.r.cfg.CDC
	view, err := inspector.Inspect(ctx, cfg, keep)
	if err != nil {
		return cdc.View{}, err
	}
	if err := view.CheckServer(s.system, s.history.Current()); err != nil {
		cfg.Hosts.MarkUnfit()
		inspector.Close()
		return cdc.View{}, err
	}
	return view, view.Check(cfg)
}

// found is where a session may start, and what is known of that position.
type found struct {
	start       checkpoint.Start
	publication map[string]string // its identity when the position was stored; nil = not known
	generation  uint32
	stored      bool // the state topic has the position
}

// position reads the stored position and decides where to start.
func (s *session) position(ctx context.Context, view cdc.View,
	read func(context.Context) (checkpoint.State, bool, error),
) (found, error) {
	over := s.patiently(ctx)
	state, stored, err := read(ctx)
	over()
	if err != nil {
		return found{}, &kafkaError{err}
	}
	known := stored
	stored = stored && !state.Overwritten
	if last := s.last; last.End != 0 {
		if known {
			last = last.Merge(state)
		}
		stored = stored && last.Position == state.Position && last.Timeline == state.Timeline && last.Generation == state.Generation
		state, known = last, true
	}
	start, err := checkpoint.Resume(state, known, checkpoint.Server{
		Slot: s.r.cfg.CDC.Slot, ConfirmedFlush: view.Slot.Confirmed(), WALEnd: view.WALEnd,
		Timeline: s.history.Current(), Ended: s.history.Ended,
	})
	return found{start, state.Publication, state.Generation, stored && start.Position == state.Position}, err
}

// storeStart stores the start of a session, unless the topic has it already. The first status
// confirms that position to Postgres, and nothing is confirmed that is not stored. The slot is
// held.
func (s *session) storeStart(ctx context.Context, found found, view cdc.View) error {
	identity := view.Identity()
	pos := found.start.Position
	state := checkpoint.State{
		Position: pos, Timeline: max(s.history.At(pos.Furthest()), found.start.Timeline), At: time.Now(),
		Generation: found.generation, Publication: identity,
	}
	if found.stored && maps.Equal(found.publication, identity) {
		s.noteStored(state)
		return nil
	}
	defer s.patiently(ctx)()
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	if err := s.store.Save(ctx, state); err != nil {
		return &kafkaError{err}
	}
	s.noteStored(state)
	return nil
}

func (s *session) logStart(start checkpoint.Start) {
	if start.Lost != 0 {
		s.log.Warn().Stringer("lsn", start.Position.End).Stringer("published_until", start.Lost).Uint32("timeline", s.history.Current()).
			Msg("failover: events between these LSNs were published, and the new primary does not know them; going on from where its timeline began")
	}
	event := s.log.Info().Str("slot", s.r.cfg.CDC.Slot).Str("publication", s.r.cfg.CDC.Publication).Stringer("lsn", start.Position.End)
	if start.First {
		event.Msg("streaming: no stored position for this slot, its own was adopted")
		return
	}
	event.Msg("streaming")
}

func (r *Relay) decoderConfig(view cdc.View) decoder.Config {
	cfg := decoder.Config{
		Columns: r.cfg.Columns, Extra: r.cfg.Topic.Extra(), Own: map[uint32]decoder.Table{}, Partitioned: map[uint32][]string{},
		LocalOnly: r.cfg.CDC.LocalOnly, Required: r.requiredNow(view),
	}
	for _, t := range view.Tables {
		cfg.Own[t.OID] = decoder.Table{Schema: t.Schema, Name: t.Name}
		cfg.Partitioned[t.OID] = view.PartitionKey(t.Schema, t.Name)
	}
	for _, t := range r.cfg.CDC.Tables {
		cfg.Tables = append(cfg.Tables, decoder.Table{Schema: t.Schema, Name: t.Name})
	}
	return cfg
}
