package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/sink"
)

// TestPositionThatWasNotStored: the last position of a session could not be stored. The next
// session goes on from it all the same: its events are published.
func TestPositionThatWasNotStored(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.connect()
	f.store(f.inspect().Slot.Confirmed())
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
	end := f.inspect().WALEnd
	f.left().last = checkpoint.State{Position: checkpoint.Position{End: end}, Timeline: 1, At: time.Now()}
	if s := f.resume(); s.start.End != end {
		t.Errorf("it goes on from %s, want %s", s.start.End, end)
	}
}

// TestOverwrittenIsWrittenAgain: behind the furthest record of the state topic lies one that says
// less, which compaction may leave alone. Whoever starts writes the furthest again, also one that
// remembers it.
func TestOverwrittenIsWrittenAgain(t *testing.T) {
	t.Parallel()
	for name, remembers := range map[string]bool{"a new one": false, "one that remembers": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			f.connect()
			view := f.inspect()
			less := checkpoint.State{Position: checkpoint.Position{End: view.Slot.Confirmed()}, Timeline: 1, At: time.Now(), Publication: view.Identity()}
			f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
			far := less
			far.End = f.inspect().WALEnd
			for _, state := range []checkpoint.State{far, less} {
				if err := f.left().store.Save(t.Context(), state); err != nil {
					t.Fatal(err)
				}
			}
			if remembers {
				f.left().last = far
			}
			f.resume()
			if stored, _, err := f.left().store.Load(t.Context()); err != nil || stored.End != far.End || stored.Overwritten {
				t.Errorf("%+v is stored (%v), want %s in the last record", stored, err, far.End)
			}
		})
	}
}

// TestSessionEndsInsideATransaction: what was published of it is the position to go on from.
func TestSessionEndsInsideATransaction(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.connect()
	s := f.resume()
	commit := s.start.End + 100
	s.watermark.Begin(commit, time.Now())
	s.watermark.Add(0, 100).Done()
	if err := s.finish(t.Context(), &kafkaError{errors.New("an outage for a moment")}); !passes(err) {
		t.Fatal(err)
	}
	want := checkpoint.Position{End: s.start.End, Commit: commit, Rows: 1}
	if stored, _, err := f.left().store.Load(t.Context()); err != nil || stored.Position != want {
		t.Errorf("%v is stored (%v), want %v", stored.Position, err, want)
	}
}

// TestGenerationStays: positions count as those of the last `walpost init --accept-gap`. A session
// that stored its own without that would be ignored by the next start.
func TestGenerationStays(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.connect()
	state := checkpoint.State{Position: checkpoint.Position{End: f.inspect().Slot.Confirmed()}, Timeline: 1, At: time.Now(), Generation: 3}
	if err := f.left().store.Save(t.Context(), state); err != nil {
		t.Fatal(err)
	}
	s := f.resume()
	if got := s.state(s.start).Generation; got != 3 {
		t.Errorf("a session behind generation 3 stores generation %d", got)
	}
	// The position has the publication with it now, which the one before lacked.
	if stored, _, err := f.left().store.Load(t.Context()); err != nil || stored.Generation != 3 || stored.Publication == nil {
		t.Errorf("at its start it stored %+v, %v; want generation 3, and the publication", stored, err)
	}
}

// TestConfirmsNoFurtherThanTheInspection: a stored position is not confirmed past the last
// inspection that found the publication whole.
func TestConfirmsNoFurtherThanTheInspection(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.connect()
	s := f.resume()
	verified := s.confirmable.verifiedUpTo()
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
	view := f.inspect()
	if view.WALEnd <= verified {
		t.Fatalf("the WAL ends at %s, want it behind %s", view.WALEnd, verified)
	}
	s.confirmable.store(view.WALEnd)
	if got := s.stream.Confirmed(); got > verified {
		t.Errorf("%s is confirmed, the last inspection was at %s", got, verified)
	}
	s.confirmable.verify(s.confirmable.inspected()) // an inspection of an earlier moment says nothing new
	if got := s.stream.Confirmed(); got > verified {
		t.Errorf("%s is confirmed, the last inspection was at %s", got, verified)
	}
	s.confirmable.verify(view)
	if got := s.stream.Confirmed(); got != view.WALEnd {
		t.Errorf("%s is confirmed after an inspection at %s", got, view.WALEnd)
	}
}

// TestInspectionOfAnotherServer: what is found behind the address of another cluster lets nothing
// through.
func TestInspectionOfAnotherServer(t *testing.T) {
	t.Parallel()
	f := setup(t)
	conn := f.connect()
	s := f.last
	s.history = conn.History
	if _, err := s.inspect(t.Context(), &cdc.Inspector{}, false); err != nil {
		t.Fatal(err)
	}
	s.system = "1"
	var inspector cdc.Inspector
	if _, err := s.inspect(t.Context(), &inspector, true); err == nil {
		t.Error("an inspection of another cluster is relied on")
	}
	if inspector.Open() {
		t.Error("the next inspection would ask the same server")
	}
}

// TestPauseEndsForTheServer: a server that wants to know the position does not wait ten seconds for
// an idle advance.
func TestPauseEndsForTheServer(t *testing.T) {
	t.Parallel()
	s := &session{
		watermark: checkpoint.NewWatermark(checkpoint.Position{End: 1}, 1<<20, make(chan struct{}, 1)),
		storeNow:  make(chan struct{}, 1),
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	poke(s.storeNow)
	if !s.pause(ctx, time.Now(), 0, true) {
		t.Error("the pause went on")
	}
}

// TestSamePositionIsStoredOnce: a server that stops asks for the position thousands of times a
// second, and it is stored already.
func TestSamePositionIsStoredOnce(t *testing.T) {
	t.Parallel()
	f := setup(t)
	s := f.resume()
	before, _, err := s.store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	poke(s.storeNow)
	ctx, cancel := context.WithTimeout(t.Context(), 10*keepEvery)
	defer cancel()
	if err := s.keep(ctx); err != nil {
		t.Fatal(err)
	}
	if after, _, err := s.store.Load(t.Context()); err != nil || !after.At.Equal(before.At) {
		t.Errorf("%s is stored once more (%v)", after.End, err)
	}
}

// TestFullHurriesTheKeeper: at the in-flight bound the stream waits for the next stored position.
func TestFullHurriesTheKeeper(t *testing.T) {
	t.Parallel()
	s := &session{
		handover:  handover{out: &sink.Sink{}},
		watermark: checkpoint.NewWatermark(checkpoint.Position{End: 1}, 8, make(chan struct{}, 1)),
		storeNow:  make(chan struct{}, 1),
	}
	s.watermark.Begin(10, time.Now())
	s.watermark.Add(0, 8)
	if !s.full() || len(s.storeNow) == 0 {
		t.Error("the keeper pauses while the stream waits for it")
	}
}

// TestInspectionInAStorm: a server asks for the position again and again, and takes no other
// connection: it wants to stop, and waits for us. Without the storm it is an inspection that
// failed, and the session goes on.
func TestInspectionInAStorm(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.connect()
	s := f.resume()
	f.relay.cfg.CDC.Postgres = f.relay.cfg.CDC.Postgres.Copy()
	f.relay.cfg.CDC.Postgres.Port = 1 // nobody listens
	inspect := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		poke(s.inspectNow)
		return s.watch(ctx)
	}
	if err := inspect(); err != nil {
		t.Errorf("an inspection that failed ends the session: %v", err)
	}
	s.pings.stormy.Store(true)
	if err := inspect(); !errors.Is(err, cdc.ErrStopping) {
		t.Errorf("in a storm an inspection that fails ends with %v, want %v", err, cdc.ErrStopping)
	}
	// While nothing is read, nobody sees a storm: the answer at connect is enough.
	s.pings.stormy.Store(false)
	f.relay.cfg.CDC.Postgres.Port = shuttingDown(t)
	if err := inspect(); !errors.Is(err, cdc.ErrStopping) {
		t.Errorf("of a server that shuts down an inspection ends with %v, want %v", err, cdc.ErrStopping)
	}
}

// shuttingDown is the port of a server that takes no connection, since it shuts down.
func shuttingDown(t *testing.T) uint16 {
	t.Helper()
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	refusal := &pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P03", Message: "the database system is shutting down"}
	answer, err := refusal.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			_, _ = conn.Read(make([]byte, 10_000))
			_, _ = conn.Write(answer)
			_ = conn.Close()
		}
	}()
	return uint16(listener.Addr().(*net.TCPAddr).Port)
}

// TestUninspectedIsNotReady: an inspection fails again and again while the stream goes on, as when
// the password was changed. Nothing is confirmed meanwhile, and the status says so.
func TestUninspectedIsNotReady(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.connect()
	s := f.resume()
	f.relay.streaming(s)
	reasons := func() string { return strings.Join(f.relay.Status().Reasons, "; ") }
	inspect := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		poke(s.inspectNow)
		if err := s.watch(ctx); err != nil {
			t.Fatal(err)
		}
	}
	sound := f.relay.cfg.CDC.Postgres
	f.relay.cfg.CDC.Postgres = sound.Copy()
	f.relay.cfg.CDC.Postgres.Port = 1 // nobody listens
	inspect()
	if got := reasons(); strings.Contains(got, "inspected") {
		t.Errorf("after one inspection that failed: %s", got)
	}
	s.uninspected.Store(&inspectFailure{time.Now().Add(-2 * saveTimeout), s.uninspected.Load().err})
	inspect()
	if got := reasons(); !strings.Contains(got, "could not be inspected for 2") || !strings.Contains(got, "127.0.0.1:1") {
		t.Errorf("after twenty seconds: %s", got)
	}
	f.relay.cfg.CDC.Postgres = sound
	inspect()
	if got := reasons(); strings.Contains(got, "inspected") {
		t.Errorf("after an inspection that worked: %s", got)
	}
}

// TestWatcherRests: the watcher of an idle session sleeps until something comes, whenever that is,
// and inspects soon then.
func TestWatcherRests(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.connect()
	s := f.resume()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.watch(ctx) }()
	for i := range 3 {
		f.await("it to rest, since nothing has come", s.idle.Load)
		f.exec(fmt.Sprintf("INSERT INTO outbox VALUES (%d, 't', 'k', 'x')", i))
		end := f.inspect().WALEnd
		s.confirmable.store(end)
		s.wakeWatcher()
		for began := time.Now(); s.confirmable.verifiedUpTo() < end; time.Sleep(20 * time.Millisecond) {
			if time.Since(began) > 5*time.Second {
				t.Fatal("what came while it rested waits")
			}
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
