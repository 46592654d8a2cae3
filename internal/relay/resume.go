package relay

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
)

// errMoved says that the position or the slot changed between the look and the hold, or that rows are of an earlier table than the look
// found: look again.
var errMoved = errors.New("the look does not hold any more, and is repeated")

// kafkaTimeout bounds one attempt to write the state topic before a session streams.
const kafkaTimeout = 20 * time.Second

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
	if err := CheckTypes(r.cfg.Columns, guess); err != nil {
		return nil, err
	}
	if guess.Slot.Active {
		return nil, &heldError{r.cfg.CDC.Slot, guess.Slot.ActivePID, guess.Slot.ActivePID == r.former}
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
	wanted, err := r.position(ctx, conn, guess, r.store.Glance)
	var gap *checkpoint.GapError
	if errors.As(err, &gap) { // or an open transaction of another relay hides what we have stored
		wanted, err = r.position(ctx, conn, guess, r.store.Load)
	}
	if err != nil {
		return nil, r.outrun(ctx, conn, err)
	}
	binary := r.wantsBinary(guess)
	stream, err := conn.Start(ctx, wanted.start.Position.End, binary)
	if err != nil {
		return nil, err
	}
	r.former = int(stream.PID())
	if err := r.takeOver(ctx); err != nil {
		return nil, err
	}
	held, err := r.inspect(ctx, conn.History, &cdc.Inspector{}, false)
	if err != nil {
		return nil, err
	}
	found, err := r.position(ctx, conn, held, r.store.Load)
	if err != nil {
		return nil, r.outrun(ctx, conn, err)
	}
	if found.start != wanted.start || binary != r.wantsBinary(held) {
		return nil, errMoved
	}
	if err := held.CheckUnaltered(r.cfg.CDC, found.publication); err != nil {
		return nil, err
	}
	start := found.start.Position
	if err := r.settleStart(ctx, found, conn.History, held); err != nil {
		return nil, err
	}
	r.logStart(found.start, conn.History)
	r.warnOfColumns(held)
	r.warn(held)
	s := &session{
		r: r, log: r.log, history: conn.History, stream: stream, out: r.out,
		decoder:   decoder.New(r.decoderConfig(held)),
		watermark: checkpoint.NewWatermark(start, r.cfg.MaxInFlight, r.room),
		start:     start, stored: start, timeline: found.start.Timeline, generation: found.generation,
		hurry: make(chan struct{}, 1), look: make(chan struct{}, 1), stir: make(chan struct{}, 1),
	}
	s.trusted.init(stream, start.End, held)
	s.out.Start(start, func(pos checkpoint.Position) ([]byte, error) { return s.state(pos).Encode(r.source()) })
	return s, nil
}

// outrun looks again where the stored position is not one of the server's: another relay may have moved on since the look, or after
// a failover, and only a newer look can tell. Also while we held the slot: we may have lost it in a pause.
func (r *Relay) outrun(ctx context.Context, conn *cdc.Conn, err error) error {
	var restored *checkpoint.RestoredError
	if !errors.As(err, &restored) {
		return err
	}
	again, lookErr := r.inspect(ctx, conn.History, &cdc.Inspector{}, false)
	if lookErr != nil {
		return lookErr
	}
	if restored.StoredTimeline == restored.Timeline && again.WALEnd >= restored.Stored { // no WAL end makes up for another timeline
		return errMoved
	}
	return err
}

// inspect looks at the server that the stream comes from; what it finds is sound.
func (r *Relay) inspect(ctx context.Context, history cdc.History, inspector *cdc.Inspector, keep bool) (cdc.View, error) {
	view, err := inspector.Inspect(ctx, r.cfg.CDC, keep)
	if err != nil {
		return cdc.View{}, err
	}
	if err := view.CheckServer(r.system, history.Current()); err != nil {
		r.cfg.CDC.Hosts.Unfit()
		inspector.Close()
		return cdc.View{}, err
	}
	return view, view.Check(r.cfg.CDC)
}

// found is where a session may start, and what is known of that position.
type found struct {
	start       checkpoint.Start
	publication map[string]string // its identity when the position was stored; nil = not known
	generation  uint32
	stored      bool // the state topic has the position
}

// position reads the stored position and decides where to start. A position of this process may be further than the
// stored one: the last write may have failed with the last session.
func (r *Relay) position(ctx context.Context, conn *cdc.Conn, view cdc.View,
	read func(context.Context) (checkpoint.State, bool, error),
) (found, error) {
	over := r.patiently(ctx)
	state, stored, err := read(ctx)
	over()
	if err != nil {
		return found{}, &kafkaError{err}
	}
	known := stored
	stored = stored && !state.Overwritten
	if last := r.last; last.End != 0 {
		if known {
			last = last.Merge(state)
		}
		stored = stored && last.Position == state.Position && last.Timeline == state.Timeline && last.Generation == state.Generation
		state, known = last, true
	}
	start, err := checkpoint.Resume(state, known, checkpoint.Server{
		Slot: r.cfg.CDC.Slot, ConfirmedFlush: view.Slot.Confirmed(), WALEnd: view.WALEnd,
		Timeline: conn.History.Current(), Ended: conn.History.Ended,
	})
	return found{start, state.Publication, state.Generation, stored && start.Position == state.Position}, err
}

// settleStart stores the start of a session, unless the topic has it already. The first status confirms that position to
// Postgres, and nothing is confirmed that is not stored. The slot is held.
func (r *Relay) settleStart(ctx context.Context, found found, history cdc.History, view cdc.View) error {
	identity := view.Identity()
	pos := found.start.Position
	state := checkpoint.State{Position: pos, Timeline: max(history.At(pos.Furthest()), found.start.Timeline), At: time.Now(), Generation: found.generation, Publication: identity}
	if found.stored && maps.Equal(found.publication, identity) {
		r.pay(state)
		return nil
	}
	defer r.patiently(ctx)()
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	if err := r.store.Save(ctx, state); err != nil {
		return &kafkaError{err}
	}
	r.pay(state)
	return nil
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

func (r *Relay) decoderConfig(view cdc.View) decoder.Config {
	cfg := decoder.Config{
		Columns: r.cfg.Columns, Extra: r.cfg.Topic.Extra(), Own: map[uint32]decoder.Table{}, Partitioned: map[uint32][]string{},
		LocalOnly: r.cfg.CDC.LocalOnly,
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
