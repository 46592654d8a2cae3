package demo

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type failing struct{ writes int }

func (f *failing) Write([]byte) (int, error) {
	f.writes++
	return 0, errors.New("nobody reads")
}

func TestScreenStopsAtTheFirstError(t *testing.T) {
	t.Parallel()
	var reader failing
	var stopped []error
	s := newScreen(&reader, false, func(err error) { stopped = append(stopped, err) })
	s.line("one")
	s.line("two")
	if reader.writes != 1 || len(stopped) != 1 || s.err() == nil {
		t.Errorf("%d writes, stopped by %v, error %v", reader.writes, stopped, s.err())
	}
}

func TestColorsDoNotMoveColumns(t *testing.T) {
	t.Parallel()
	a := arrival{
		at: time.Now(), topic: "demo.order", partition: 1, key: "order-1001", kind: "OrderPlaced", pos: strings.Repeat("0", 34),
		took: 1234 * time.Microsecond, known: true,
	}
	plain, painted := render(false, a), render(true, a)
	if !strings.HasSuffix(plain, "     1.2\n") || strings.Contains(plain, "\x1b") {
		t.Errorf("plain: %q", plain)
	}
	bare := painted
	for _, code := range []string{bold, dim, red, green, yellow, blue, purple, "0"} {
		bare = strings.ReplaceAll(bare, "\x1b["+code+"m", "")
	}
	if painted == plain || bare != plain {
		t.Errorf("painted: %q", painted)
	}
	a.known = false
	if !strings.Contains(render(false, a), "was not committed") {
		t.Error("a record that nobody committed looks like the others")
	}
}

func render(colors bool, a arrival) string {
	var b strings.Builder
	newScreen(&b, colors, nil).record(a)
	return b.String()
}

func TestShopDoomsOneInEight(t *testing.T) {
	t.Parallel()
	var s shop
	for block := range 20 {
		doomed := 0
		for range oneIn {
			if s.isDoomed() {
				doomed++
			}
		}
		if doomed != 1 {
			t.Fatalf("block %d: %d of %d are rolled back", block, doomed, oneIn)
		}
	}
}

func TestShopEventsFollowWhatWasCommitted(t *testing.T) {
	t.Parallel()
	var s shop
	for range 500 {
		work := s.choose()
		if len(work.events) == 0 || work.sql == "" || work.excuse == "" {
			t.Fatalf("got %+v", work)
		}
		for _, e := range work.events {
			if e.id == "" || e.key == "" || e.kind == "" || !strings.HasPrefix(e.key, e.aggregate+"-") {
				t.Fatalf("got %+v", e)
			}
		}
		before := len(s.open)
		if s.isDoomed() {
			continue
		}
		work.done()
		if len(s.open) > 20 || len(s.open) < before-1 {
			t.Fatalf("%d open orders", len(s.open))
		}
	}
}

func TestSummaryCountsInTheSingular(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	newScreen(&b, false, nil).summary(totals{committed: 1, transactions: 1, rolledBack: 2, rolledBackTransactions: 1, received: 1})
	for _, want := range []string{"committed     1 event in 1 transaction\n", "rolled back   2 events in 1 transaction; ", "received      1 event\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the summary lacks %q:\n%s", want, b.String())
		}
	}
}
