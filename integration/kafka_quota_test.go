package integration

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// setQuota bounds what clients named walpost may produce, in bytes per second.
func setQuota(t testing.TB, env *Env, rate float64) {
	t.Helper()
	name := "walpost"
	altered, err := kadm.NewClient(env.Client(t)).AlterClientQuotas(t.Context(), []kadm.AlterClientQuotaEntry{{
		Entity: kadm.ClientQuotaEntity{{Type: "client-id", Name: &name}},
		Ops:    []kadm.AlterClientQuotaOp{{Key: "producer_byte_rate", Value: rate}},
	}})
	if err == nil && altered[0].Err != nil {
		err = altered[0].Err
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestProducerQuota has the brokers slow the relay down.
func TestProducerQuota(t *testing.T) {
	t.Parallel()
	for _, delivery := range deliveries {
		t.Run(delivery, func(t *testing.T) {
			if delivery != exactly {
				long(t)
			}
			env := Setup(t, Needs{Kafka: Own})
			env.Init(t)
			setQuota(t, env, 100_000)
			began := time.Now()
			work := env.Workload(t, WorkloadOptions{Events: 4000, NoLarge: true})
			relay := env.Run(t, "WALPOST_DELIVERY="+delivery, "WALPOST_MAX_IN_FLIGHT_BYTES=1MiB")
			relay.Ready(t, 60*time.Second)
			work.Wait(t)
			env.Check(t, work).Assert(t, 0)
			took := time.Since(began)
			t.Logf("everything was there after %s", took.Round(time.Second))
			if took < 8*time.Second { // without the quota it takes some three
				t.Errorf("everything was there after %s: the brokers have slowed nothing down", took)
			}
			if peak := residentPeakMiB(t, relay.PID()); peak > 100 {
				t.Errorf("the relay took %d MiB", peak)
			}
			whole(t, env, work, relay)
		})
	}
}

// slowLine carries bytes to a broker at a bounded rate, and back without one.
type slowLine struct {
	listener net.Listener
	target   chan string // the address of the broker, once it is known
	rate     int         // bytes per second
	group    sync.WaitGroup
}

func newSlowLine(t *testing.T, rate int) *slowLine {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &slowLine{listener: listener, target: make(chan string, 1), rate: rate}
	l.group.Go(l.serve)
	t.Cleanup(func() { _ = listener.Close() })
	return l
}

func (l *slowLine) address() string { return l.listener.Addr().String() }

func (l *slowLine) serve() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		address := <-l.target
		l.target <- address
		broker, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", address)
		if err != nil {
			_ = client.Close()
			continue
		}
		l.group.Go(func() { l.copySlowly(broker, client) })
		l.group.Go(func() {
			_, _ = io.Copy(client, broker)
			_ = client.Close()
		})
	}
}

func (l *slowLine) copySlowly(to, from net.Conn) {
	defer func() { _ = to.Close() }()
	piece := make([]byte, l.rate/50)
	for {
		n, err := from.Read(piece)
		if n > 0 {
			if _, err := to.Write(piece[:n]); err != nil {
				return
			}
			time.Sleep(time.Duration(n) * time.Second / time.Duration(l.rate)) // this is the rate
		}
		if err != nil {
			return
		}
	}
}

// TestSlowLine has a line to the brokers over which a full transaction takes longer than the
// brokers let it: the relay makes smaller ones, and gets through.
func TestSlowLine(t *testing.T) {
	long(t)
	line := newSlowLine(t, 200_000)
	env := Setup(t, Needs{Kafka: Own, KafkaConfig: map[string]string{"advertised.listeners": "CLIENT://" + line.address()}})
	line.target <- env.Brokers[0]
	env.Init(t)
	env.CreateTopic(t, env.Prefix+"order", eventPartitions, nil)
	env.Exec(t, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, headers)
		SELECT gen_random_uuid(), 'order', (i % 100)::text, 'Placed', jsonb_build_object('x', repeat('x', 1000)), jsonb_build_object('seq', i::text)
		FROM generate_series(1, 8000) i`)
	relay := env.Run(t, exactlyOnce)
	relay.Ready(t, time.Minute)
	Eventually(t, 4*time.Minute, "everything to be published",
		func() bool { return published(t, env, relay, "order") >= 8000 })
	if !strings.Contains(relay.Log(), "took too long") {
		t.Error("no transaction took too long: this proves nothing")
	}
	env.CheckTruth(t, env.ReadTruth(t)).Assert(t, 0)
	relay.Stop(t)
}
