package checkpoint

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"
)

// slowConn returns few bytes at a time, after a while.
type slowConn struct{ net.Conn }

func (c slowConn) Read(p []byte) (int, error) {
	time.Sleep(8 * time.Millisecond)
	return c.Conn.Read(p[:min(len(p), 2<<10)])
}

// TestLoadOfALongTopic: a topic that is never compacted takes longer to read than one answer may
// take. It is read all the same, and not again.
func TestLoadOfALongTopic(t *testing.T) {
	t.Parallel()
	cluster, open := setup(t)
	s := open("1/a")
	expectLoad(t, s, State{}, false)
	const (
		records = 20_000
		answer  = 8 << 10 // bytes: so that each arrives in time, however busy the machine is
	)
	writer, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ProducerBatchMaxBytes(answer))
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for i := range records {
		value, err := at(LSN(i + 1)).Encode("1/a")
		if err != nil {
			t.Fatal(err)
		}
		writer.Produce(t.Context(), &kgo.Record{Topic: "state", Key: []byte("1/a"), Value: value}, nil)
	}
	if err := writer.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	slow, err := NewStore([]kgo.Opt{
		kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.FetchMaxPartitionBytes(answer),
		kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			return slowConn{conn}, err
		}),
	}, "state", "1/a", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	slow.timeout = 500 * time.Millisecond
	start := time.Now()
	expectLoad(t, slow, at(records), true)
	took := time.Since(start)
	if took < 2*slow.timeout {
		t.Fatalf("the topic was read within %s: this test proves nothing", took)
	}
	mustSave(t, s, at(records+1))
	start = time.Now()
	expectLoad(t, slow, at(records+1), true)
	if again := time.Since(start); again > took/4 {
		t.Errorf("%s for one more record, %s for all before", again, took)
	}
}
