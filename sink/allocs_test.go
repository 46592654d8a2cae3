package sink

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/checkpoint"
)

// promptClient confirms every record at once.
type promptClient struct{}

func (promptClient) Produce(_ context.Context, r *kgo.Record, promise func(*kgo.Record, error)) {
	promise(r, nil)
}
func (promptClient) Flush(context.Context) error                                 { return nil }
func (promptClient) BeginTransaction() error                                     { return nil }
func (promptClient) EndTransaction(context.Context, kgo.TransactionEndTry) error { return nil }
func (promptClient) ProducerID(context.Context) (int64, int16, error)            { return 1, 0, nil }

func (promptClient) Request(context.Context, kmsg.Request) (kmsg.Response, error) { panic("not asked") }
func (promptClient) Close()                                                       {}

// TestProduceAllocatesNothing: no event costs an allocation between its decoding and its
// confirmation, but for the client's own.
func TestProduceAllocatesNothing(t *testing.T) {
	for name, exactly := range map[string]*Exactly{
		"at least once": nil, "exactly once": {ID: "x", Bytes: 1 << 20, Interval: 1 << 40},
	} {
		t.Run(name, func(t *testing.T) {
			f := setup(t, func(c *Config) {
				c.NewClient = func(...kgo.Opt) (Client, error) { return promptClient{}, nil }
				c.Exactly = exactly
			})
			if err := f.sink.Begin(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.sink.Start(checkpoint.Position{End: 1}, func(checkpoint.Position) ([]byte, error) { return nil, nil })
			order := f.sink.topics.named("order")
			order.limit.Store(defaultLimit)
			order.resolved.Store(true)
			e := placed()
			pos := checkpoint.Position{End: 1}
			n := testing.AllocsPerRun(50_000, func() {
				pos.End++
				if err := f.sink.Produce(e, Transaction{Commit: uint64(pos.End)}, noMark{}, pos); err != nil {
					t.Fatal(err)
				}
			})
			if n > 0 { // whole allocations an event: what many events share does not count
				t.Errorf("%v allocations an event, want less than one", n)
			}
			if err := f.sink.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		})
	}
}
