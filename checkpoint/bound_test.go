package checkpoint

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// unbounded returns a Watermark that is never full.
func unbounded(start Position) *Watermark {
	return NewWatermark(start, math.MaxInt64, make(chan struct{}, 1))
}

// store does what the keeper of the position does.
func store(w *Watermark) {
	_, _, freed := w.Position()
	w.Stored(freed)
}

// keep stores whenever the position may have moved, until stop is called.
func keep(w *Watermark) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-w.Moved():
				store(w)
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// TestHalfOfATransactionIsRoom: the bound is reached inside one transaction. Once the first half of
// the transaction is stored, there is room again, whatever the size of its events.
func TestHalfOfATransactionIsRoom(t *testing.T) {
	t.Parallel()
	const limit = 8 << 20
	for _, size := range []int64{512, 4 << 10, 16 << 10, 63 << 10, 65 << 10} {
		w := NewWatermark(Position{End: 100}, limit, make(chan struct{}, 1))
		w.Begin(200, time.Now())
		var marks []*Mark
		for row := uint32(0); !w.Full(); row++ {
			marks = append(marks, w.Add(row, size))
		}
		for _, m := range marks[:len(marks)/2] {
			m.Done()
		}
		store(w)
		if w.Full() {
			t.Errorf("events of %d bytes: half of %d are stored, and there is no room", size, len(marks))
		}
	}
}

// TestBoundReachesBackToTheOldest: one event waits while all that follow are confirmed. They count
// until it is confirmed, too.
func TestBoundReachesBackToTheOldest(t *testing.T) {
	t.Parallel()
	room := make(chan struct{}, 1)
	w := NewWatermark(Position{End: 100}, 1000, room)
	lsn := LSN(100)
	transaction := func() *Mark {
		w.Begin(lsn+5, time.Now())
		m := w.Add(0, 100)
		lsn += 10
		w.Commit(lsn)
		return m
	}
	stuck := transaction()
	n := 1
	for ; !w.Full(); n++ {
		if n > 10 {
			t.Fatalf("%d transactions of 100 bytes behind a stuck one, and a bound of 1000 is not reached", n)
		}
		transaction().Done()
		store(w)
	}
	if n != 10 || len(w.queue) > 10 {
		t.Fatalf("full after %d transactions with %d marks, want 10", n, len(w.queue))
	}
	stuck.Done()
	if !w.Full() {
		t.Fatal("room before the position was stored")
	}
	store(w)
	select {
	case <-room:
	default:
		t.Fatal("the oldest is confirmed and stored, and nobody was told")
	}
	if w.Full() {
		t.Fatal("full although all is confirmed")
	}
	expect(t, w, Position{End: lsn})
}

// TestBoundFreesAQuarter: a reader that found the bound reached continues once there is room for a
// while, not just for one event.
func TestBoundFreesAQuarter(t *testing.T) {
	t.Parallel()
	w := NewWatermark(Position{End: 100}, 1000, make(chan struct{}, 1))
	w.Begin(110, time.Now())
	var marks []*Mark
	for i := uint32(0); !w.Full(); i++ {
		marks = append(marks, w.Add(i, 100))
		w.Suspend() // a mark for each
	}
	for i, m := range marks[:3] {
		if !w.Full() {
			t.Fatalf("room after %d of 10 were confirmed", i)
		}
		m.Done()
		store(w)
	}
	if w.Full() {
		t.Fatal("full although three tenths are free")
	}
}

// TestBoundInsideATransaction: no event of a transaction may wait for the transaction's end to free
// its room, neither many small ones nor one that is larger than the bound.
func TestBoundInsideATransaction(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int64{"small": 90, "larger than the bound": 5000} {
		room := make(chan struct{}, 1)
		w := NewWatermark(Position{End: 100}, 1000, room)
		w.Begin(110, time.Now())
		for row := range uint32(100) {
			m := w.Add(row, size)
			full := w.Full()
			m.Done()
			store(w)
			if !full {
				continue
			}
			select {
			case <-room:
			default:
				t.Fatalf("%s: row %d is confirmed, and nobody was told", name, row)
			}
			if w.Full() {
				t.Fatalf("%s: full after row %d although all is confirmed", name, row)
			}
			expect(t, w, Position{End: 100, Commit: 110, Rows: row + 1})
		}
		_, before, _ := w.Position()
		w.Commit(120)
		if pos, passed, _ := w.Position(); pos != (Position{End: 120}) || passed == before {
			t.Fatalf("%s: the end of the transaction is at %v, passed %d and %d: want 120 and more",
				name, pos, before, passed)
		}
	}
}

// TestBoundNeverLosesAWord runs a reader that waits for room beside a goroutine that confirms: the
// reader must never miss the signal.
func TestBoundNeverLosesAWord(t *testing.T) {
	t.Parallel()
	room := make(chan struct{}, 1)
	w := NewWatermark(Position{End: 100}, 1000, room)
	defer keep(w)()
	flight := make(chan *Mark, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		held := []*Mark{}
		for m := range flight {
			held = append(held, m)
			if rand.N(3) > 0 && len(flight) > 0 {
				continue
			}
			rand.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
			for _, m := range held {
				m.Done()
			}
			held = held[:0]
		}
	}()
	lsn := LSN(100)
	for range 400_000 {
		w.Begin(lsn+5, time.Now())
		for row := range uint32(rand.N(4)) {
			flight <- w.Add(row, 1+rand.Int64N(400))
			for w.Full() {
				select {
				case <-room:
				case <-time.After(10 * time.Second):
					t.Fatal("everything is confirmed, and the reader waits")
				}
			}
		}
		lsn += 10
		w.Commit(lsn)
	}
	close(flight)
	<-ended
	w.Position()
	if w.added != w.freed {
		t.Fatalf("all is confirmed, and %d bytes of %d are not free", w.added-w.freed, w.added)
	}
}

// TestLargeEventsHaveAMarkOfTheirOwn: if a large event is refused, the position reaches up to it,
// inside its transaction.
func TestLargeEventsHaveAMarkOfTheirOwn(t *testing.T) {
	t.Parallel()
	w := unbounded(Position{End: 100})
	w.Begin(110, time.Now())
	var marks []*Mark
	for row, size := range []int64{10, 10, largeEvent, 10, largeEvent, largeEvent, 10} {
		marks = append(marks, w.Add(uint32(row), size))
	}
	w.Commit(120)
	for i, m := range marks {
		if i != 2 && i != 4 {
			m.Done()
		}
	}
	expect(t, w, Position{End: 100, Commit: 110, Rows: 2})
	marks[2].Done()
	expect(t, w, Position{End: 100, Commit: 110, Rows: 4})
	marks[4].Done()
	expect(t, w, Position{End: 120})
}

// TestBoundWordAtTheLastMoment stores the position while the reader is about to wait.
func TestBoundWordAtTheLastMoment(t *testing.T) {
	t.Parallel()
	room := make(chan struct{}, 1)
	w := NewWatermark(Position{End: 100}, 1, room)
	flight := make(chan int64)
	go func() {
		for total := range flight {
			for range rand.N(40) { // about as long as Full takes
				w.safe.Load()
			}
			w.Stored(total)
		}
	}()
	defer close(flight)
	w.Begin(110, time.Now())
	for row := range uint32(500_000) {
		w.Add(row, 1).Done()
		flight <- w.added
		for w.Full() {
			select {
			case <-room:
			case <-time.After(5 * time.Second):
				t.Fatalf("row %d is stored, and the reader waits", row)
			}
		}
	}
}
