package sink

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
)

// TestEventsAndPositionTogether: an event counts once its transaction is committed, and the
// position behind it is in the same one.
func TestEventsAndPositionTogether(t *testing.T) {
	t.Parallel()
	f := exactly(t, nil)
	asked, release := f.holdCommits()
	for i := range 3 {
		f.mustProduce("orders", "k", fmt.Sprint(i), 10)
	}
	<-asked // everything is with the brokers, and the end of the transaction is not
	for i := range 2 {
		f.mustProduce("orders", "k", fmt.Sprint(3+i), 10)
	}
	if f.marks[0].done.Load() != 0 {
		t.Error("an event counts as published before its transaction is committed")
	}
	if got := append(f.committed("orders"), f.committed("state")...); len(got) > 0 {
		t.Errorf("consumers see %v before the commit", got)
	}
	close(release)
	f.mustFlush()
	for i, m := range f.marks {
		if m.done.Load() != 1 {
			t.Errorf("mark %d was told %d times", i, m.done.Load())
		}
	}
	if got := strings.Join(f.committed("orders"), " "); got != "0 1 2 3 4" {
		t.Errorf("consumers see %s", got)
	}
	positions := f.committed("state")
	if n := len(positions); n < 2 || positions[n-1] != f.position(5).String() || positions[0] == positions[n-1] {
		t.Errorf("stored are %v, want several, and %s at the end", positions, f.position(5))
	}
	if st := f.sink.Stats(); st.Events != 0 || st.Bytes != 0 || st.Published["orders"] != 5 {
		t.Errorf("counts are %+v", st)
	}
}

// slowMark is told until released.
type slowMark struct{ told, release chan struct{} }

func (m slowMark) Done() {
	close(m.told)
	<-m.release
}

// TestFlushWaitsForMarks: the position that is stored behind a Flush depends on the marks.
func TestFlushWaitsForMarks(t *testing.T) {
	t.Parallel()
	f := exactly(t, nil)
	m := slowMark{make(chan struct{}), make(chan struct{})}
	e := &decoder.Event{ID: []byte("1"), Key: []byte("k"), AggregateType: []byte("orders")}
	if err := f.sink.Produce(e, Transaction{Timeline: 1, Commit: 1}, m, f.position(1)); err != nil {
		t.Fatal(err)
	}
	<-m.told // the transaction is committed
	flushed := make(chan error, 1)
	go func() { flushed <- f.flush() }()
	select {
	case err := <-flushed:
		close(m.release)
		t.Fatalf("Flush returned before the mark was told: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(m.release)
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
}

// TestWaitingEventsGetANewTime: brokers delete records by their time, and may refuse one that is
// old.
func TestWaitingEventsGetANewTime(t *testing.T) {
	t.Parallel()
	f := exactly(t, nil)
	asked, release := f.holdCommits()
	f.mustProduce("orders", "k", "0", 1)
	<-asked
	old := time.Now().Add(-time.Hour)
	e := &decoder.Event{ID: []byte("1"), Key: []byte("k"), AggregateType: []byte("orders")}
	if err := f.sink.Produce(e, Transaction{Commit: 2, Read: old}, &mark{}, f.position(2)); err != nil {
		t.Fatal(err)
	}
	close(release)
	f.mustFlush()
	if waited := f.records("orders")[1]; time.Since(waited.Timestamp) > time.Minute {
		t.Errorf("the time of an event that has waited is %s", waited.Timestamp)
	}
}

// TestSaveWithoutAnEvent stores an idle advance in a transaction of its own, and nothing that is
// stored already.
func TestSaveWithoutAnEvent(t *testing.T) {
	t.Parallel()
	f := exactly(t, nil)
	pos := checkpoint.Position{End: 500}
	f.sink.Reached(pos)
	for range 2 {
		if err := f.sink.Save(t.Context(), checkpoint.State{Position: pos}); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.committed("state"); len(got) != 1 || got[0] != pos.String() {
		t.Errorf("stored are %v, want %s once", got, pos)
	}
}

// onlyWithFlush keeps a transaction open until somebody waits for it.
func onlyWithFlush(c *Config) { c.Linger, c.Exactly.Interval = time.Minute, time.Minute }

// TestFencedBySuccessor: the next sink of the source fences this one, and what was not committed is
// not there.
func TestFencedBySuccessor(t *testing.T) {
	t.Parallel()
	f := exactly(t, onlyWithFlush)
	f.mustProduce("orders", "k", "zombie", 10)
	next := f.another(func(c *Config) { c.Linger = 0 })
	next.begin()
	next.mustProduce("orders", "k", "successor", 10)
	next.mustFlush()
	var fenced *CommitError
	if err := f.flush(); !errors.As(err, &fenced) || !fenced.Fenced || f.marks[0].done.Load() != 0 {
		t.Errorf("Flush = %v, mark told %d times: want to be fenced", err, f.marks[0].done.Load())
	}
	if got := f.committed("orders"); len(got) != 1 || got[0] != "successor" {
		t.Errorf("consumers see %v", got)
	}
}

// TestRefusedEventAbortsItsTransaction: nothing of the transaction is there; a sink that knows the
// event commits what is before it, and stops there, also if the brokers have refused another for
// its sake.
func TestRefusedEventAbortsItsTransaction(t *testing.T) {
	t.Parallel()
	f := exactly(t, onlyWithFlush)
	f.refuse("event-2-", kerr.PolicyViolation.Code)
	all := func(f *fixture) error {
		for i := range 4 { // in one batch, or more if the flush comes in between
			if err := f.produce("orders", "k", fmt.Sprintf("event-%d-", i), 10); err != nil {
				return err
			}
		}
		return f.flush()
	}
	var refused *EventError
	if err := all(f); !errors.As(err, &refused) ||
		!refused.Sent || refused.Outage || refused.Alone || refused.EventID > "event-2-" {
		t.Fatalf("the error is %v, want the first event of the batch of event 2", err)
	}
	if got := f.committed("orders"); len(got) > 0 {
		t.Fatalf("consumers see %v of an aborted transaction", got)
	}
	f.sink.Close()
	f = f.another(func(c *Config) { c.Refused = refused })
	f.begin()
	for _, err := range []error{all(f), f.flush()} {
		if !errors.As(err, &refused) || !refused.Alone || refused.EventID != "event-2-" {
			t.Fatalf("the error is %v, want event 2, alone", err)
		}
	}
	if got := strings.Join(f.committed("orders"), " "); got != "event-0- event-1-" {
		t.Errorf("consumers see %s, want what is before the refused event", got)
	}
	if got := f.committed("state"); len(got) == 0 || got[len(got)-1] != f.position(2).String() {
		t.Errorf("stored are %v, want %s at the end", got, f.position(2))
	}
}

// TestWeakTransactions: with brokers of the old kind it works, and reports the weaker guarantee.
func TestWeakTransactions(t *testing.T) {
	t.Parallel()
	for level, want := range map[int16]bool{0: false, 2: true} {
		var said []bool
		f := setup(t, func(c *Config) {
			c.Exactly = &Exactly{ID: "walpost/7/walpost", Interval: 50 * time.Millisecond, Bytes: 1 << 20}
			c.Exactly.Guarantee = func(strong bool) { said = append(said, strong) }
		}, kfake.SeedTopics(1, "orders", "other", "state"))
		req := kmsg.NewPtrUpdateFeaturesRequest()
		feature := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
		feature.Feature, feature.MaxVersionLevel, feature.UpgradeType = "transaction.version", level, 2
		req.FeatureUpdates = append(req.FeatureUpdates, feature)
		resp, err := req.RequestWith(t.Context(), f.sink.client)
		if err != nil || resp.ErrorCode != 0 {
			t.Fatal(err, resp.ErrorCode)
		}
		f.begin()
		f.mustProduce("orders", "k", "e", 10)
		f.mustFlush()
		if len(said) != 1 || said[0] != want || len(f.committed("orders")) != 1 {
			t.Errorf("transaction.version %d: strong %v, want %t; consumers see %v",
				level, said, want, f.committed("orders"))
		}
	}
}
