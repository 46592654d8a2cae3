package sink

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Client is what a Sink needs of a Kafka client. [kgo.Client] is one, and its documentation says what each method promises; the
// options that a Sink makes it with are part of the contract.
type Client interface {
	Produce(ctx context.Context, r *kgo.Record, promise func(*kgo.Record, error))
	Flush(ctx context.Context) error
	BeginTransaction() error
	EndTransaction(ctx context.Context, commit kgo.TransactionEndTry) error
	ProducerID(ctx context.Context) (id int64, epoch int16, err error)
	Request(ctx context.Context, req kmsg.Request) (kmsg.Response, error)
	Close()
}

// newClient makes the real one.
func newClient(opts ...kgo.Opt) (Client, error) { return kgo.NewClient(opts...) }
