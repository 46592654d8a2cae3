package main

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration"
)

// produceAlone sends as many records as the backlog has rows, and as large, without any Postgres.
func produceAlone(h *host, env *integration.Env, b backlog, prefix string) drained {
	client := env.Client(h, producerOptions(time.Millisecond)...)
	payload := bytes.Repeat([]byte{'x'}, max(b.bytes-40, 1))
	keys := make([][]byte, b.keys)
	for i := range keys {
		keys[i] = []byte(strconv.Itoa(i))
	}
	own, broker, start := busyTime(os.Getpid()), brokerTime(env), time.Now()
	var failure error
	done := func(_ *kgo.Record, err error) {
		if err != nil {
			failure = err // promises are called one after the other
		}
	}
	topics := make([]string, b.topics)
	for i := range topics {
		topics[i] = prefix + "order" + strconv.Itoa(i)
	}
	for i := range b.rows {
		client.Produce(h.ctx, &kgo.Record{
			Topic: topics[i%b.topics], Key: keys[i%b.keys], Value: payload,
			Headers: someHeaders,
		}, done)
	}
	if err := client.Flush(h.ctx); err != nil || failure != nil {
		h.Fatal("produce: ", err, failure)
	}
	took := time.Since(start)
	return drained{
		rows: b.rows, whole: took, steadyRows: b.rows, steady: took,
		own: busyTime(os.Getpid()) - own, broker: brokerTime(env) - broker,
	}
}

// producerOptions are what the relay sets as far as it costs anything.
func producerOptions(linger time.Duration) []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(linger),
		kgo.MaxBufferedRecords(100_000),
	}
}

// someHeaders are as long as those of an event.
var someHeaders = []kgo.RecordHeader{
	{Key: "id", Value: bytes.Repeat([]byte{'i'}, 36)},
	{Key: "type", Value: []byte("Placed")},
	{Key: "source", Value: bytes.Repeat([]byte{'s'}, 28)},
	{Key: "pos", Value: bytes.Repeat([]byte{'p'}, 34)},
}

// brokerTime is how long the brokers have run so far.
func brokerTime(env *integration.Env) time.Duration {
	var sum time.Duration
	for _, pid := range env.BrokerPIDs() {
		sum += busyTime(pid)
	}
	return sum
}
