package relay

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestRefusalBeforeALaterRow: T1 is good, the brokers refuse T2, T3 breaks the contract; all in one
// Kafka transaction. The relay publishes T1 and stops at T2: skipping T3 would also skip
// both.
func TestRefusalBeforeALaterRow(t *testing.T) {
	t.Parallel()
	f := exactly(t)
	f.relay.cfg.Linger, f.relay.cfg.Interval, f.relay.cfg.CreateTopics = 100*time.Millisecond, 2*time.Second, true
	f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.broker.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if !holds(r, "bad2") {
			return nil, nil, false
		}
		return refuse(r, func(records string) int16 {
			if strings.Contains(records, "bad2") {
				return kerr.PolicyViolation.Code
			}
			return kerr.NotEnoughReplicas.Code // in the same request, and not its fault
		}), nil, true
	})
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'good1')")
	f.exec("INSERT INTO outbox VALUES (2, 'u', 'k', 'bad2')") // brokers refuse whole batches: another topic is another batch
	f.exec("INSERT INTO outbox VALUES (3, 'no topic!', 'k', 'x')")
	for start := range 2 {
		r := f.again()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		err := r.Run(ctx)
		cancel()
		var halt *Halt
		if !errors.As(err, &halt) {
			t.Fatal(err)
		}
		if got := f.seen("t"); !strings.Contains(err.Error(), `publish event "2"`) || len(got) != 1 || got[0] != "good1" {
			t.Errorf("start %d stops with %v, and consumers see %q; want event 2 named, and what is before it published", start, err, got)
		}
	}
}

// TestNeighboursOfARefusedEvent: the brokers refuse events for the sake of another. The relay
// publishes what comes before the refused one, and names that one, at each start.
func TestNeighboursOfARefusedEvent(t *testing.T) {
	t.Parallel()
	for delivery, setup := range map[string]func(*testing.T) *fixture{"at least once": setup, "exactly once": exactly} {
		t.Run("in its batch, "+delivery, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			f.relay.cfg.Linger, f.relay.cfg.Interval = 100*time.Millisecond, 2*time.Second
			f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
				f.broker.KeepControl()
				r := req.(*kmsg.ProduceRequest)
				if !holds(r, "bad4") {
					return nil, nil, false
				}
				return refuse(r, func(records string) int16 {
					if strings.Contains(records, "bad4") {
						return kerr.PolicyViolation.Code
					}
					return kerr.NotEnoughReplicas.Code // the position, in the same request
				}), nil, true
			})
			f.exec("INSERT INTO outbox VALUES (2, 't', 'k', 'good2'), (3, 't', 'k', 'good3'), (4, 't', 'k', 'bad4'), (5, 't', 'k', 'good5')")
			before := []string{" good2 good3", " good2 good3"}
			if !f.relay.cfg.ExactlyOnce { // the first may have been sent alone, and the position is one of whole segments of a transaction
				before = []string{"( good2)? good2 good3", "(( good2)? good2 good3){2}"}
			}
			f.stopsAt4(before...)
		})
	}
	t.Run("added to the transaction with it", func(t *testing.T) {
		t.Parallel()
		f := exactly(t)
		f.weakTransactions()
		f.relay.cfg.Linger, f.relay.cfg.Interval, f.relay.cfg.CreateTopics = 100*time.Millisecond, 2*time.Second, true
		f.broker.ControlKey(int16(kmsg.AddPartitionsToTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
			f.broker.KeepControl()
			resp, found := refuseToAdd(req.(*kmsg.AddPartitionsToTxnRequest), "u")
			return resp, nil, found
		})
		f.exec("INSERT INTO outbox VALUES (3, 't', 'k', 'good3'), (4, 'u', 'k', 'bad4')")
		f.stopsAt4(" good3", " good3")
	})
}

// stopsAt4 runs relays, each until it stops at event 4, and compares what consumers see then.
func (f *fixture) stopsAt4(before ...string) {
	f.t.Helper()
	for start, want := range before {
		ctx, cancel := context.WithTimeout(f.t.Context(), 2*time.Minute)
		err := f.again().Run(ctx)
		cancel()
		var halt *Halt
		if !errors.As(err, &halt) {
			f.t.Fatalf("Run = %v", err)
		}
		if got := " " + strings.Join(f.seen("t"), " "); !regexp.MustCompile("^"+want+"$").MatchString(got) || !strings.Contains(err.Error(), `publish event "4"`) {
			f.t.Errorf("start %d stops with %v, and consumers see%s; want event 4 named, and what is before it published", start, err, got)
		}
	}
}

// weakTransactions makes the cluster one whose clients add partitions to a transaction by a request
// of their own.
func (f *fixture) weakTransactions() {
	f.t.Helper()
	admin, err := kgo.NewClient(kgo.SeedBrokers(f.broker.ListenAddrs()...))
	if err != nil {
		f.t.Fatal(err)
	}
	defer admin.Close()
	req := kmsg.NewPtrUpdateFeaturesRequest()
	feature := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
	feature.Feature, feature.MaxVersionLevel, feature.UpgradeType = "transaction.version", 0, 2
	req.FeatureUpdates = append(req.FeatureUpdates, feature)
	if resp, err := req.RequestWith(f.t.Context(), admin); err != nil || resp.ErrorCode != 0 {
		f.t.Fatal(err, resp)
	}
}

// refuseToAdd answers a request with a topic that the client may not write as Kafka does: its
// neighbours were not tried.
func refuseToAdd(r *kmsg.AddPartitionsToTxnRequest, denied string) (answer kmsg.Response, found bool) {
	resp := r.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
	for _, topic := range r.Topics {
		of := kmsg.NewAddPartitionsToTxnResponseTopic()
		of.Topic = topic.Topic
		for _, partition := range topic.Partitions {
			p := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
			p.Partition, p.ErrorCode = partition, kerr.OperationNotAttempted.Code
			if topic.Topic == denied {
				p.ErrorCode, found = kerr.TopicAuthorizationFailed.Code, true
			}
			of.Partitions = append(of.Partitions, p)
		}
		resp.Topics = append(resp.Topics, of)
	}
	return resp, found
}

// TestTopicRefusedBeforeItsFirstEvent: the brokers deny a topic before any event of it is sent.
// What comes before that event, in the same Kafka transaction, is published, and no position passes
// the event, though the stream goes on for a moment.
func TestTopicRefusedBeforeItsFirstEvent(t *testing.T) {
	t.Parallel()
	f := exactly(t)
	f.relay.cfg.Linger, f.relay.cfg.Interval = 300*time.Millisecond, 2*time.Second
	f.broker.ControlKey(int16(kmsg.Metadata), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.broker.KeepControl()
		r := req.(*kmsg.MetadataRequest)
		if len(r.Topics) != 1 || r.Topics[0].Topic == nil || *r.Topics[0].Topic != "u" {
			return nil, nil, false
		}
		resp := r.ResponseKind().(*kmsg.MetadataResponse)
		denied := kmsg.NewMetadataResponseTopic()
		denied.Topic, denied.ErrorCode = kmsg.StringPtr("u"), kerr.TopicAuthorizationFailed.Code
		resp.Topics = append(resp.Topics, denied)
		return resp, nil, true
	})
	f.exec("INSERT INTO outbox VALUES (3, 't', 'k', 'good3'), (4, 'u', 'k', 'bad4')")
	f.stopsAt4(" good3", " good3")
}

// TestBadRowBehindAStuckEvent: a row breaks the contract, or is refused by the brokers, while they
// cannot take, for longer than a drain may last, an event before it. The hint to skip the row
// would skip that event as well, so the relay stops only when it is published.
func TestBadRowBehindAStuckEvent(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]string{"no key": "(2, 't', '', 'x')", "no topic": "(2, 'no topic!', 'k', 'x')", "refused": "(2, 'u', 'k', 'bad2')"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			f.relay.cfg.DrainTimeout, f.relay.cfg.CreateTopics, f.relay.cfg.Linger = time.Second, true, 100*time.Millisecond
			began := time.Now()
			f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
				f.broker.KeepControl()
				r := req.(*kmsg.ProduceRequest)
				stuck := time.Since(began) < 6*time.Second && holds(r, "good1")
				if !stuck && !holds(r, "bad2") {
					return nil, nil, false
				}
				return refuse(r, func(records string) int16 {
					if strings.Contains(records, "bad2") {
						return kerr.PolicyViolation.Code
					}
					return kerr.NotEnoughReplicas.Code
				}), nil, true
			})
			f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'good1')")
			f.exec("INSERT INTO outbox VALUES " + bad)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			err := New(f.relay.cfg).Run(ctx)
			var halt *Halt
			if got := f.seen("t"); !errors.As(err, &halt) || halt.Hint == "" || len(got) != 1 || got[0] != "good1" {
				t.Errorf("it stops with %v, and consumers see %q; want a hint, and what is before the row published", err, got)
			}
		})
	}
}
