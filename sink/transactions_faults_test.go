package sink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
)

// TestForeignOpenTransactionHidesNothing: another relay with exactly-once delivery shares the state
// topic and is killed between its state record and the end of its transaction. What ours commits
// behind that is found by a start: fence, then Load.
func TestForeignOpenTransactionHidesNothing(t *testing.T) {
	t.Parallel()
	for range 5 {
		if foreignOpenTransaction(t) {
			return
		}
	}
	t.Error("the fake broker loses count of sequences at each attempt")
}

// foreignOpenTransaction reports false if the fake broker lost count of the sequences in a
// partition that two producers share, as it does now and then. To a relay that is a session that
// starts over.
func foreignOpenTransaction(t *testing.T) bool {
	t.Helper()
	f := exactly(t, nil)
	encode := func(p checkpoint.Position) ([]byte, error) {
		return checkpoint.State{Position: p, Timeline: 1, At: time.Now()}.Encode("7/walpost")
	}
	f.sink.how.(*transactions).state = encode
	f.mustProduce("orders", "k", "e1", 10)
	f.mustFlush()
	// The other relay: another source, the same state topic; killed before EndTxn.
	other := f.client(kgo.TransactionalID("walpost/8/walpost"), kgo.TransactionTimeout(3*time.Second),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := other.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	record := &kgo.Record{Topic: "state", Key: []byte("8/walpost"), Value: []byte("{}")}
	if err := other.ProduceSync(t.Context(), record).FirstErr(); err != nil {
		t.Fatal(err)
	}
	other.Close() // a kill: nothing aborts it before its time is over

	f.mustProduce("orders", "k", "e2", 10)
	if err := f.flush(); errors.Is(err, kerr.OutOfOrderSequenceNumber) {
		return false
	} else if err != nil {
		t.Fatal(err)
	}
	if f.marks[1].done.Load() != 1 {
		t.Fatal("e2 is not committed")
	}
	f.sink.Close() // killed

	next := f.another(func(*Config) {})
	if err := next.sink.Begin(t.Context()); err != nil { // fence
		t.Fatal(err)
	}
	store, err := checkpoint.NewStore(next.sink.cfg.Client, "state", "7/walpost", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	state, stored, err := store.Load(t.Context())
	if want := f.position(2); err != nil || state.Position != want {
		t.Errorf("after the fence the stored position is %v (%t, %v), want %v: else e2 is published again",
			state.Position, stored, err, want)
	}
	return true
}

// TestReloadInsideATransaction: for a partition whose beginning was deleted the client takes a new
// producer epoch by itself (KIP-360), which aborts what is in the transaction, and goes on. What is
// left of the transaction must not be committed.
func TestReloadInsideATransaction(t *testing.T) {
	t.Parallel()
	f := setup(t, func(c *Config) {
		c.Linger = 10 * time.Millisecond
		c.Exactly = &Exactly{ID: "walpost/7/walpost", Interval: time.Minute, Bytes: 1 << 20}
	}, kfake.SeedTopics(1, "orders", "other", "state"))
	f.sink.cfg.Linger = time.Minute // the client sends at once; commits come with flush alone
	f.begin()
	// The client has published to "other" before.
	f.mustProduce("other", "k", "warm", 10)
	f.mustFlush()
	var hits atomic.Int32
	f.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if hits.Load() > 0 {
			return nil, nil, false
		}
		if !holds(r, "truncated") || len(r.Topics) != 1 {
			return nil, nil, false
		}
		hits.Add(1)
		return refusal(r, func(p *kmsg.ProduceResponseTopicPartition, _ string) {
			p.ErrorCode, p.LogStartOffset = kerr.OutOfOrderSequenceNumber.Code, 1000
		}), nil, true
	})
	f.mustProduce("orders", "k", "e1", 10)
	admin := kadm.NewClient(f.sink.client.(*kgo.Client))
	for { // until e1 is with the brokers
		ends, err := admin.ListEndOffsets(t.Context(), "orders")
		if err != nil {
			t.Fatal(err)
		}
		if end, _ := ends.Lookup("orders", 0); end.Offset > 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.mustProduce("other", "k", "truncated", 10)
	for deadline := time.Now().Add(10 * time.Second); hits.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // the client sends it by itself
	}
	err := f.flush()
	var given *CommitError
	if !errors.As(err, &given) || hits.Load() != 1 || f.marks[1].done.Load()+f.marks[2].done.Load() != 0 {
		t.Errorf("flush = %v after %d faults; marks told: e1 %d, truncated %d; want the transaction to be given up",
			err, hits.Load(), f.marks[1].done.Load(), f.marks[2].done.Load())
	}
	if got := append(f.committed("orders"), f.committed("state")[1:]...); len(got) != 0 {
		t.Errorf("consumers see %v of a transaction that lost its beginning", got)
	}
}

// TestSaveDoesNotSpin: rows 0 (event), 1 (a DELETE that the stream carries), 2 (event for a topic
// that is missing). The position that the keeper stores lies where a cut can be made, so it is not
// committed again and again until the topic is there.
func TestSaveDoesNotSpin(t *testing.T) {
	t.Parallel()
	f := exactly(t, func(c *Config) { c.CreateTopics = false })
	w := checkpoint.NewWatermark(checkpoint.Position{End: 1}, 1<<20, f.room)
	w.Begin(100, time.Now())
	event := func(topic string, index uint32, size int) *decoder.Event {
		return &decoder.Event{
			ID: []byte(fmt.Sprint(index)), Key: []byte("k"), AggregateType: []byte(topic), Index: index,
			Payload: []byte(strings.Repeat("x", size)),
		}
	}
	e := event("orders", 0, 10)
	mark := w.Add(0, Size(e))
	if err := f.sink.Produce(e, Transaction{Timeline: 1, Commit: 100}, mark, w.Reached()); err != nil {
		t.Fatal(err)
	}
	for f.sink.Held() {
		<-f.room
	}
	e = event("missing", 2, 100<<10) // has a mark of its own, by its size
	mark = w.Add(2, Size(e))
	if err := f.sink.Produce(e, Transaction{Timeline: 1, Commit: 100}, mark, w.Reached()); err != nil {
		t.Fatal(err)
	}
	var pos checkpoint.Position
	for start := time.Now(); time.Since(start) < 30*time.Second && pos.Rows == 0; time.Sleep(10 * time.Millisecond) {
		pos, _, _ = w.Position()
	}
	var ends atomic.Int32
	f.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		ends.Add(1)
		return nil, nil, false
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := f.sink.Save(ctx, checkpoint.State{Position: pos}) // as the keeper does
	if err != nil || ends.Load() > 3 {
		t.Errorf("Save = %v; %d Kafka transactions without an event", err, ends.Load())
	}
}

// TestRefusedStateRecordIsTold: the brokers give up the transaction at the state record
// (TRANSACTION_ABORTABLE, as transaction.version 2 does when a verification takes too long), and an
// event has to be sent once more. The gate shuts, and the sink fails at once.
func TestRefusedStateRecordIsTold(t *testing.T) {
	t.Parallel()
	f := exactly(t, func(c *Config) { c.Linger = 50 * time.Millisecond })
	f.mustProduce("orders", "k", "warm", 10)
	f.mustFlush()
	f.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		r := req.(*kmsg.ProduceRequest)
		if len(r.Topics) != 2 { // the event and the position in one request
			f.cluster.KeepControl()
			return nil, nil, false
		}
		return refusal(r, func(p *kmsg.ProduceResponseTopicPartition, records string) {
			p.ErrorCode = kerr.TransactionAbortable.Code
			if strings.Contains(records, "event") {
				p.ErrorCode = kerr.NotLeaderForPartition.Code
			}
		}), nil, true
	})
	f.mustProduce("orders", "k", "event", 10)
	done := make(chan error, 1)
	go func() {
		f.sink.how.(*transactions).mu.Lock()
		f.sink.how.(*transactions).flushing = true
		f.sink.how.(*transactions).mu.Unlock()
		f.sink.how.(*transactions).wakeCommitter()
		<-f.sink.Failed()
		done <- f.sink.Err()
	}()
	select {
	case err := <-done:
		var given *CommitError
		if !errors.As(err, &given) || given.Refused {
			t.Errorf("the sink ended with %v, want a commit that is tried again by another", err)
		}
	case <-time.After(10 * time.Second):
		select {
		case <-f.sink.gate.shut:
			t.Error("the gate is shut")
		default:
		}
		t.Errorf("ten seconds later: Err %v, %d events in flight, nobody is told", f.sink.Err(), f.sink.Stats().Events)
		_ = f.sink.latch(reasonOutage, errors.New("end of the test"))
	}
}

// TestRefusedPosition: brokers that refuse the position for good are a reason to stop, and no
// outage.
func TestRefusedPosition(t *testing.T) {
	t.Parallel()
	f := exactly(t, nil)
	f.refuse(f.position(1).String(), kerr.PolicyViolation.Code)
	f.mustProduce("orders", "k", "1", 1)
	var given *CommitError
	if err := f.flush(); !errors.As(err, &given) || !given.Refused || given.Fenced || f.marks[0].done.Load() != 0 {
		t.Errorf("the sink ended with %v, mark told %d times: want a refused position", err, f.marks[0].done.Load())
	}
}

// TestRefusedPositionBeforeRefusedEvent: an event breaks the contract while what comes before it is
// in flight, and the brokers refuse the position behind that. An operator who skips the event
// relies on what comes before it, so the error has to be that of the transaction.
func TestRefusedPositionBeforeRefusedEvent(t *testing.T) {
	t.Parallel()
	f := exactly(t, func(c *Config) { c.Linger = 50 * time.Millisecond })
	f.cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		return refusal(req.(*kmsg.ProduceRequest), func(p *kmsg.ProduceResponseTopicPartition, records string) {
			if !strings.Contains(records, "before") {
				p.ErrorCode = kerr.TransactionAbortable.Code
			}
		}), nil, true
	})
	f.mustProduce("orders", "k", "before", 10)
	var event *EventError
	if err := f.produce("no topic!", "k", "bad", 10); !errors.As(err, &event) {
		t.Fatalf("an illegal topic: %v", err)
	}
	err := f.flush()
	var commit *CommitError
	if !errors.As(err, &commit) {
		t.Errorf("the sink ended with %v, want a commit that failed: the event before is not published", err)
	}
}

// TestSaveBeforeReached: the keeper saves a position that the watermark has already, a moment
// before the producer says how far it is. Nothing else wakes the committer.
func TestSaveBeforeReached(t *testing.T) {
	t.Parallel()
	f := exactly(t, nil)
	idle := checkpoint.Position{End: 50}
	saved := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() { saved <- f.sink.Save(ctx, checkpoint.State{Position: idle}) }()
	time.Sleep(50 * time.Millisecond) // it waits
	f.sink.Reached(idle)
	if err := <-saved; err != nil {
		t.Errorf("Save = %v: nobody woke the goroutine that commits", err)
	}
}
