package sink

import (
	"context"
	"math"
	"net"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Client is what a Sink needs of a Kafka client. [kgo.Client] is one, and its documentation says
// what each method promises; the options that a Sink makes it with are part of the contract.
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

// metadataMinAge is the shortest time between two requests for metadata.
const metadataMinAge = 250 * time.Millisecond

// options are those of the client.
func (s *Sink) options() []kgo.Opt {
	dial := s.cfg.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	opts := append([]kgo.Opt(nil), s.cfg.Client...)
	if s.cfg.Exactly != nil {
		opts = append(opts, kgo.TransactionalID(s.cfg.Exactly.ID), kgo.TransactionTimeout(transactionTimeout))
	}
	return append(opts,
		kgo.Dialer(s.gate.dialer(dial)),
		kgo.WithLogger(&clientLog{s.gate, &s.trouble, s.log}),
		kgo.WithHooks(s.health),
		// An address that accepts and closes, as load balancers do without a backend, is an outage
		// and no refusal.
		kgo.AlwaysRetryEOF(),
		// A batch that is to be sent again waits for fresh metadata: with the default of 5 s a
		// moved leader costs that much.
		kgo.MetadataMinAge(metadataMinAge),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(partitioner{&s.topics}),
		kgo.ProducerLinger(s.cfg.Linger),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytesFn(s.topics.batchLimit),
		kgo.BrokerMaxWriteBytes(int32(s.cfg.MaxRequest)),
		// The in-flight bound is the watermark's: Produce must not block the goroutine that keeps
		// the replication connection alive.
		kgo.MaxBufferedRecords(math.MaxInt32),
		// A topic that vanished is an outage to wait for.
		kgo.UnknownTopicRetries(-1),
		kgo.StopProducerOnDataLossDetected(),
	)
}

// clientLog takes the log of the Kafka client. It shuts the wire gate, tells trouble of partitions
// that wait, and passes the lines on a level lower than the client ranks them: what an operator has
// to know, the relay says itself.
type clientLog struct {
	gate    *wireGate
	trouble *trouble
	log     zerolog.Logger
}

// Level is asked before each line.
func (l *clientLog) Level() kgo.LogLevel {
	if l.trouble.on.Load() {
		return kgo.LogLevelDebug
	}
	return kgo.LogLevelInfo
}

func (l *clientLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	if saysRecordsFail(msg, keyvals) {
		l.gate.close()
	}
	if msg == producerRefused { // on the goroutine that asks
		l.gate.pause(betweenProducers)
	}
	l.trouble.hear(msg, keyvals)
	event := l.log.Trace()
	if level <= kgo.LogLevelWarn {
		event = l.log.Debug()
	}
	event.Fields(keyvals).Msg("client: " + msg)
}
