package checkpoint

import (
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func position(w *Watermark) Position {
	p, _, _ := w.Position()
	return p
}

func expect(t *testing.T, w *Watermark, want Position) {
	t.Helper()
	if got := position(w); got != want {
		t.Fatalf("position is %v, want %v", got, want)
	}
}

func TestEventsOfOneTransactionConfirmedOutOfOrder(t *testing.T) {
	t.Parallel()
	w := unbounded(Position{End: 100})
	w.Begin(110, time.Now())
	a, b := w.Add(0, 1), w.Add(1, 1)
	w.Commit(120)
	w.Begin(130, time.Now())
	c := w.Add(0, 1)
	w.Commit(140)

	c.Done() // the later transaction first: nothing moves
	b.Done()
	expect(t, w, Position{End: 100})
	a.Done()
	expect(t, w, Position{End: 140})
}

func TestOpenTransactionIsNotPassed(t *testing.T) {
	t.Parallel()
	w := unbounded(Position{End: 100})
	w.Begin(110, time.Now())
	w.Add(0, 1).Done()
	expect(t, w, Position{End: 100}) // all its events so far are confirmed, but more may come
	w.Idle(105)
	expect(t, w, Position{End: 100}) // a keepalive inside a transaction says nothing
	w.Commit(120)
	expect(t, w, Position{End: 120})
}

func TestKeepaliveWaitsBehindTransactions(t *testing.T) {
	t.Parallel()
	w := unbounded(Position{End: 100})
	w.Begin(110, time.Now())
	a := w.Add(0, 1)
	w.Commit(120)
	w.Idle(500)
	w.Idle(600)
	expect(t, w, Position{End: 100})
	a.Done()
	expect(t, w, Position{End: 600})
	w.Idle(550) // never backwards
	expect(t, w, Position{End: 600})
}

func TestEmptyTransactionsTakeNoMemory(t *testing.T) {
	t.Parallel()
	w := unbounded(Position{End: 100})
	w.Begin(110, time.Now())
	a := w.Add(0, 1)
	w.Commit(120)
	for i := LSN(0); i < 100_000; i++ {
		w.Begin(200+2*i, time.Now())
		w.Commit(201 + 2*i)
	}
	if n := len(w.queue); n > 2 {
		t.Fatalf("%d marks in the queue after empty transactions, want at most 2", n)
	}
	expect(t, w, Position{End: 100})
	_, before, _ := w.Position()
	a.Done()
	pos, passed, _ := w.Position()
	if want := LSN(201 + 2*99_999); pos.End != want || passed != before+1 {
		t.Fatalf("position %v after %d marks, want %v after %d", pos, passed, want, before+1)
	}
}

func TestLongTransactionMovesInSegments(t *testing.T) {
	t.Parallel()
	w := unbounded(Position{End: 100})
	w.Begin(5000, time.Now())
	var marks []*Mark
	for i := range uint32(3*eventsPerMark + 10) {
		marks = append(marks, w.Add(i, 1))
	}
	for _, m := range marks[eventsPerMark : 3*eventsPerMark] {
		m.Done()
	}
	expect(t, w, Position{End: 100})
	for _, m := range marks[:eventsPerMark] {
		m.Done()
	}
	expect(t, w, Position{End: 100, Commit: 5000, Rows: 3 * eventsPerMark})
	for _, m := range marks[3*eventsPerMark:] {
		m.Done()
	}
	w.Suspend()
	expect(t, w, Position{End: 100, Commit: 5000, Rows: 3*eventsPerMark + 10})
}

func TestResumeInsideATransaction(t *testing.T) {
	t.Parallel()
	start := Position{End: 100, Commit: 5000, Rows: 7}
	w := unbounded(start)
	w.Idle(400) // the transaction is still to come: what is done of it must not be forgotten
	expect(t, w, Position{End: 400, Commit: 5000, Rows: 7})
	w.Begin(5000, time.Now())
	m := w.Add(7, 1)
	w.Suspend()
	expect(t, w, Position{End: 400, Commit: 5000, Rows: 7})
	m.Done()
	expect(t, w, Position{End: 400, Commit: 5000, Rows: 8})
}

func TestPublished(t *testing.T) {
	t.Parallel()
	p := Position{End: 100, Commit: 200, Rows: 3}
	for _, c := range []struct {
		commit LSN
		row    uint32
		want   bool
	}{{90, 9, true}, {100, 0, false}, {200, 2, true}, {200, 3, false}, {201, 0, false}} {
		if got := p.Published(c.commit, c.row); got != c.want {
			t.Errorf("Published(%v, %d) = %v, want %v", c.commit, c.row, got, c.want)
		}
	}
}

// TestPositionIsTheFinishedPrefix plays random streams and confirms their events in random order,
// and compares the position after each step with a model: the end of the longest prefix in which
// everything is confirmed.
func TestPositionIsTheFinishedPrefix(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		// step is one of the model: it becomes the position once its events are done.
		type step struct {
			pos  Position
			need []int // indexes into marks
		}
		var (
			w       = unbounded(Position{End: 10})
			lsn     = LSN(10)
			marks   []*Mark
			done    []bool
			steps   []step
			current Position
			last    = Position{End: 10}
		)
		confirmSome := func() {
			for i := range marks {
				if !done[i] && rapid.Bool().Draw(t, "confirm") {
					marks[i].Done()
					done[i] = true
				}
			}
		}
		check := func() {
			for len(steps) > 0 {
				finished := true
				for _, i := range steps[0].need {
					finished = finished && done[i]
				}
				if !finished {
					break
				}
				current, steps = steps[0].pos, steps[1:]
			}
			if current == (Position{}) {
				current = Position{End: 10}
			}
			got := position(w)
			if got != current {
				t.Fatalf("position is %v, want %v", got, current)
			}
			if got.Before(last) {
				t.Fatalf("position went back from %v to %v", last, got)
			}
			last = got
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			lsn += LSN(rapid.IntRange(1, 50).Draw(t, "wal"))
			if rapid.Bool().Draw(t, "keepalive") {
				w.Idle(lsn)
				steps = append(steps, step{pos: Position{End: lsn}})
			} else {
				commit := lsn
				w.Begin(commit, time.Now())
				var need []int
				for row := range rapid.IntRange(0, 5).Draw(t, "events") {
					need = append(need, len(marks))
					marks, done = append(marks, w.Add(uint32(row), 1)), append(done, false)
					if rapid.Bool().Draw(t, "confirm inside") {
						confirmSome()
						check()
					}
				}
				lsn += 5
				w.Commit(lsn)
				steps = append(steps, step{pos: Position{End: lsn}, need: need})
			}
			confirmSome()
			check()
		}
		for i := range marks {
			if !done[i] {
				marks[i].Done()
				done[i] = true
			}
		}
		check()
		if got := position(w); got.End != lsn {
			t.Fatalf("all is confirmed and the position is %v, want %v", got, lsn)
		}
	})
}

func TestMovedSignalsAndOldest(t *testing.T) {
	t.Parallel()
	w := unbounded(Position{End: 100})
	at := time.Now().Add(-time.Minute)
	w.Begin(110, at)
	m := w.Add(0, 1)
	w.Commit(120)
	if got, ok := w.Oldest(); !ok || !got.Equal(at) {
		t.Fatalf("oldest is %v, %v, want %v", got, ok, at)
	}
	select {
	case <-w.Moved():
		t.Fatal("moved before anything was confirmed")
	default:
	}
	go m.Done()
	<-w.Moved()
	if _, ok := w.Oldest(); ok {
		t.Fatal("something is still the oldest")
	}
}

func BenchmarkWatermark(b *testing.B) {
	w := unbounded(Position{End: 1})
	at := time.Now()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		w.Begin(LSN(10*i+5), at)
		m := w.Add(0, 1)
		w.Commit(LSN(10*i + 10))
		m.Done()
	}
}

// TestRowsAreCountedByTheirIndex: a row without an event counts, too.
func TestRowsAreCountedByTheirIndex(t *testing.T) {
	t.Parallel()
	w := unbounded(Position{End: 100})
	w.Begin(110, time.Now())
	w.Add(0, 1).Done()
	w.Add(5, 1).Done()
	w.Suspend()
	expect(t, w, Position{End: 100, Commit: 110, Rows: 6})
}
