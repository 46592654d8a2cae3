package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func setup(t *testing.T) (*kfake.Cluster, func(source string) *Store) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster, func(source string) *Store {
		s, err := NewStore([]kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, "state", source, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
}

func at(end LSN) State {
	return State{Timeline: 1, Position: Position{End: end}, At: time.Unix(1, 0).UTC()}
}

func mustSave(t *testing.T, s *Store, states ...State) {
	t.Helper()
	for _, state := range states {
		if err := s.Save(t.Context(), state); err != nil {
			t.Fatal(err)
		}
	}
}

func expectLoad(t *testing.T, s *Store, want State, stored bool) {
	t.Helper()
	got, ok, err := s.Load(t.Context())
	if err != nil || ok != stored || !reflect.DeepEqual(got, want) {
		t.Fatalf("Load = %+v, %v, %v, want %+v, %v", got, ok, err, want, stored)
	}
}

func TestStoreRoundTrip(t *testing.T) {
	t.Parallel()
	_, open := setup(t)
	s := open("1/a")
	expectLoad(t, s, State{}, false)
	full := State{Timeline: 3, Position: Position{End: 1 << 40, Commit: 1<<40 + 9, Rows: 17}, At: time.Unix(7, 0).UTC(), Publication: map[string]string{"public.outbox": "16401/733"}}
	mustSave(t, s, at(100), full)
	expectLoad(t, s, full, true)
	expectLoad(t, open("1/a"), full, true)
	expectLoad(t, open("1/b"), State{}, false) // another source has its own record
}

func TestStoreFurthestRecordWins(t *testing.T) {
	t.Parallel()
	_, open := setup(t)
	old, next := open("1/a"), open("1/a")
	expectLoad(t, old, State{}, false)
	mustSave(t, old, at(100))
	mustSave(t, next, at(300))
	mustSave(t, old, at(200)) // a paused relay wakes up and writes what it had in hand
	furthest := at(300)
	furthest.Overwritten = true
	expectLoad(t, next, furthest, true)
	later := State{Timeline: 2, Position: Position{End: 250}, At: time.Unix(1, 0).UTC()}
	mustSave(t, next, later) // after a failover a smaller LSN of a later timeline is further
	expectLoad(t, next, later, true)
}

// TestStoreTwoWriters: a relay that has lost its stream inside the transaction that commits at 300,
// and had seen no keepalive since 100, still stores what it has published of it, while its
// successor stores an idle advance to 200 and confirms that. Both are right.
func TestStoreTwoWriters(t *testing.T) {
	t.Parallel()
	within, advance := State{Timeline: 1, Position: Position{End: 100, Commit: 300, Rows: 1}}, at(200)
	within.At = advance.At
	for _, order := range [][2]State{{within, advance}, {advance, within}} {
		_, open := setup(t)
		a, b := open("1/a"), open("1/a")
		if _, _, err := a.Load(t.Context()); err != nil { // makes the topic
			t.Fatal(err)
		}
		mustSave(t, a, order[0])
		mustSave(t, b, order[1])
		want := State{Timeline: 1, Position: Position{End: 200, Commit: 300, Rows: 1}, At: advance.At, Overwritten: true}
		expectLoad(t, open("1/a"), want, true)
		server := Server{Slot: "walpost", ConfirmedFlush: 200, WALEnd: 1000, Timeline: 1}
		if start, err := Resume(want, true, server); err != nil || start.Position != want.Position {
			t.Errorf("it starts at %v, %v", start.Position, err)
		}
		mustSave(t, a, want) // and what is stored again is one record
		want.Overwritten = false
		expectLoad(t, open("1/a"), want, true)
	}
}

// TestMergeKeepsHistoriesApart: what lies on another timeline, or before an operator's decision,
// raises nothing.
func TestMergeKeepsHistoriesApart(t *testing.T) {
	t.Parallel()
	base := State{Timeline: 2, Generation: 1, Position: Position{End: 100, Commit: 300, Rows: 1}}
	for _, other := range []State{
		{Timeline: 1, Generation: 1, Position: Position{End: 900}}, {Timeline: 2, Generation: 0, Position: Position{End: 900}},
	} {
		if got := other.Merge(base); got.Position != base.Position || got.Overwritten {
			t.Errorf("%+v and then %+v are %+v", other, base, got)
		}
		if got := base.Merge(other); got.Position != base.Position || !got.Overwritten {
			t.Errorf("%+v and then %+v are %+v", base, other, got)
		}
	}
}

func TestStoreResetForgets(t *testing.T) {
	t.Parallel()
	_, open := setup(t)
	s, other := open("1/a"), open("1/b")
	expectLoad(t, s, State{}, false)
	mustSave(t, s, at(500))
	mustSave(t, other, at(400))
	before, _, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reset(t.Context(), before, at(200)); err != nil {
		t.Fatal(err)
	}
	decided := at(200)
	decided.Generation = 1
	expectLoad(t, s, decided, true)
	mustSave(t, open("1/a"), at(900)) // a relay that was paused, and does not know
	decided.Overwritten = true
	expectLoad(t, s, decided, true)
	expectLoad(t, open("1/a"), decided, true)
	expectLoad(t, other, at(400), true)
}

// TestStoreTopicMadeAgain: what was read of a topic is forgotten with it, whether the one that took
// its name is shorter or not.
func TestStoreTopicMadeAgain(t *testing.T) {
	t.Parallel()
	for name, after := range map[string][]State{"empty": nil, "shorter": {at(100)}, "longer": {at(100), at(200), at(300), at(250)}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster, open := setup(t)
			s, other := open("1/a"), open("1/a")
			expectLoad(t, s, State{}, false)
			mustSave(t, s, at(400), at(500))
			expectLoad(t, s, at(500), true)
			admin, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
			if err != nil {
				t.Fatal(err)
			}
			defer admin.Close()
			if _, err := kadm.NewClient(admin).DeleteTopic(t.Context(), "state"); err != nil {
				t.Fatal(err)
			}
			expectLoad(t, other, State{}, false) // it makes the topic
			mustSave(t, other, after...)
			var want State
			for _, state := range after {
				want.Overwritten = true
				if state.End > want.End {
					want = state
				}
			}
			time.Sleep(300 * time.Millisecond) // a client knows topics by heart for 250 ms
			expectLoad(t, s, want, len(after) > 0)
		})
	}
}

// TestSaveIntoATopicMadeAgain: a topic that was deleted can be written after a moment, whoever made
// it again.
func TestSaveIntoATopicMadeAgain(t *testing.T) {
	t.Parallel()
	for name, byAnother := range map[string]bool{"by another": true, "by itself": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, open := setup(t)
			s, other := open("1/a"), open("1/a")
			expectLoad(t, s, State{}, false)
			mustSave(t, s, at(400))
			if _, err := kadm.NewClient(other.client).DeleteTopic(t.Context(), "state"); err != nil {
				t.Fatal(err)
			}
			if byAnother {
				expectLoad(t, other, State{}, false)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err := s.Save(ctx, at(500))
			for err != nil && ctx.Err() == nil {
				err = s.Save(ctx, at(500))
			}
			if err != nil {
				t.Fatal(err)
			}
			expectLoad(t, open("1/a"), at(500), true)
		})
	}
}

func TestStoreTopicIsCompactedAndOfOnePartition(t *testing.T) {
	t.Parallel()
	cluster, open := setup(t)
	s := open("1/a")
	expectLoad(t, s, State{}, false)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	configs, err := kadm.NewClient(client).DescribeTopicConfigs(t.Context(), "state")
	if err != nil {
		t.Fatal(err)
	}
	policy := ""
	for _, c := range configs[0].Configs {
		if c.Key == "cleanup.policy" {
			policy = c.MaybeValue()
		}
	}
	if policy != "compact" {
		t.Fatalf("cleanup.policy is %q, want compact", policy)
	}
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 3, 1, nil, "wide"); err != nil {
		t.Fatal(err)
	}
	wide, err := NewStore([]kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, "wide", "1/a", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer wide.Close()
	var bad *TopicError
	if _, _, err := wide.Load(t.Context()); !errors.As(err, &bad) {
		t.Fatalf("Load of a topic with three partitions = %v, want a TopicError", err)
	}
}

func TestStoreWarnsOfATopicThatForgets(t *testing.T) {
	t.Parallel()
	cluster, _ := setup(t)
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for policy, warns := range map[string]int{"delete": 1, "compact,delete": 1, "compact": 0} {
		topic := strings.ReplaceAll(policy, ",", "-")
		if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 1, 1, map[string]*string{"cleanup.policy": &policy}, topic); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		s, err := NewStore([]kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...)}, topic, "1/a", zerolog.New(&log))
		if err != nil {
			t.Fatal(err)
		}
		expectLoad(t, s, State{}, false)
		expectLoad(t, s, State{}, false)
		s.Close()
		if n := strings.Count(log.String(), "forgets"); n != warns {
			t.Errorf("cleanup.policy %s: %d warnings, want %d: %s", policy, n, warns, log.String())
		}
	}
}

// refusal answers a produce request with an error for each of its partitions.
func refusal(req kmsg.Request, code int16) kmsg.Response {
	r := req.(*kmsg.ProduceRequest)
	resp := r.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range r.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		rp := kmsg.NewProduceResponseTopicPartition()
		rp.ErrorCode = code
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

func TestSaveFailsWithItsCause(t *testing.T) {
	t.Parallel()
	cluster, open := setup(t)
	s := open("1/a")
	expectLoad(t, s, State{}, false)
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		return refusal(req, kerr.TopicAuthorizationFailed.Code), nil, true
	})
	if err := s.Save(t.Context(), at(100)); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Fatalf("Save = %v, want the broker's refusal", err)
	}
}

func TestSaveReturnsWithItsContext(t *testing.T) {
	t.Parallel()
	s, err := NewStore([]kgo.Opt{kgo.SeedBrokers("127.0.0.1:1")}, "state", "1/a", zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Save(ctx, at(100)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Save = %v, want the deadline", err)
	}
}

func TestDecodeStateRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		``, `{}`, `{"version":2,"timeline":1,"end_lsn":"0/1","commit_lsn":"0/0"}`,
		`{"version":1,"timeline":1,"end_lsn":"x","commit_lsn":"0/0"}`, `{"version":1,"timeline":0,"end_lsn":"0/1","commit_lsn":"0/0"}`,
		`{"version":1,"timeline":1,"end_lsn":"0/0","commit_lsn":"0/0"}`,
	} {
		if s, err := DecodeState([]byte(bad)); err == nil {
			t.Errorf("DecodeState(%s) = %+v, want an error", bad, s)
		}
	}
	value, err := at(0x16B3748).Encode("1/a")
	if err != nil || !strings.Contains(string(value), `"end_lsn":"0/16B3748"`) {
		t.Fatalf("Encode = %s, %v", value, err)
	}
}

// TestSaveAfterOneThatWasGivenUp: a write that nobody waits for any more must not take the next one
// with it.
func TestSaveAfterOneThatWasGivenUp(t *testing.T) {
	t.Parallel()
	cluster, open := setup(t)
	s := open("1/a")
	expectLoad(t, s, State{}, false)
	asked, release := make(chan struct{}), make(chan struct{})
	ask := sync.OnceFunc(func() { close(asked) })
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		ask()
		cluster.SleepControl(func() { <-release })
		return refusal(req, kerr.NotLeaderForPartition.Code), nil, true // the client tries again
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if err := s.Save(ctx, at(100)); !errors.Is(err, context.Canceled) {
		t.Fatalf("Save = %v, want to be given up", err)
	}
	saved := make(chan error, 1)
	go func() { saved <- s.Save(t.Context(), at(200)) }()
	time.Sleep(100 * time.Millisecond) // into the buffer, behind the first
	close(release)
	if err := <-saved; err != nil {
		t.Fatalf("the next Save = %v", err)
	}
	expectLoad(t, s, at(200), true)
}

// slowConn brings few bytes at a time, and takes its time for each.
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
		answer  = 8 << 10 // bytes: of many answers each comes well within the timeout, however busy the machine is
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
	slow, err := NewStore([]kgo.Opt{kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.FetchMaxPartitionBytes(answer), kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return slowConn{conn}, err
	})}, "state", "1/a", zerolog.Nop())
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
