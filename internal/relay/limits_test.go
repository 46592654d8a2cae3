package relay

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/internal/pgserver"
	"github.com/walpost/walpost/sink"
)

// TestTransactionTimeout: a walsender decodes inside a transaction, and that lasts as long as Kafka
// is away. A transaction_timeout of the database must not end it.
func TestTransactionTimeout(t *testing.T) {
	t.Parallel()
	server, err := pgserver.Start(t.Context(), pgserver.Options{Major: 18})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	f := &fixture{t: t, server: server}
	f.exec("CREATE TABLE outbox (id int PRIMARY KEY, aggregatetype text, aggregateid text, payload text)")
	f.exec("CREATE PUBLICATION walpost FOR TABLE outbox WITH (publish = 'insert')")
	f.exec("SELECT pg_create_logical_replication_slot('walpost', 'pgoutput')")
	f.exec("ALTER DATABASE postgres SET transaction_timeout = '2s'")
	if f.broker, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t", "state")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.broker.Close)
	template, err := sink.ParseTemplate("{aggregatetype}", nil)
	if err != nil {
		t.Fatal(err)
	}
	postgres, err := pgconn.ParseConfig(server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	f.cfg = cdc.Config{
		Postgres: postgres, Slot: "walpost", Publication: "walpost",
		Tables: []cdc.Table{{Schema: "public", Name: "outbox"}}, Log: zerolog.Nop(),
	}
	f.relay = New(Config{
		CDC: f.cfg, Kafka: []kgo.Opt{kgo.SeedBrokers(f.broker.ListenAddrs()...)}, Topic: template, StateTopic: "state",
		MaxInFlight: 1 << 20, DrainTimeout: 3 * time.Second, Log: zerolog.Nop(),
	})
	var began time.Time // with the first batch
	refused := make(chan struct{}, 1)
	f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.broker.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		if !holds(r, "xxxxxxxx") {
			return nil, nil, false
		}
		if began.IsZero() {
			began = time.Now()
		}
		if time.Since(began) > 6*time.Second {
			return nil, nil, false
		}
		poke(refused)
		return refuse(r, func(string) int16 { return kerr.NotEnoughReplicas.Code }), nil, true
	})
	f.exec("INSERT INTO outbox SELECT i, 't', 'k', repeat('x', 1000) FROM generate_series(1, 20000) i")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f.relay.Run(ctx) }()
	for f.relay.Status().Sink.Published["t"] < 20000 {
		select {
		case err := <-ended:
			t.Fatalf("an outage of Kafka ended the relay: %v", err)
		case <-ctx.Done():
			t.Fatal("the events did not arrive")
		case <-time.After(100 * time.Millisecond):
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ends with %v", err)
	}
	if len(refused) == 0 {
		t.Error("there was no outage")
	}
	if n := f.relay.Status().Reconnects; n != 0 {
		t.Errorf("the stream broke off %d times", n)
	}
}

// TestConnectRevoked: the role loses the right to connect while its stream goes on. The relay stops
// and says which right.
func TestConnectRevoked(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.exec("CREATE ROLE w LOGIN REPLICATION; REVOKE CONNECT ON DATABASE postgres FROM public; GRANT CONNECT ON DATABASE postgres TO w")
	cfg, err := pgconn.ParseConfig(f.server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.User = "w"
	f.cfg.Postgres, f.relay.cfg.CDC.Postgres = cfg, cfg
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f.relay.Run(ctx) }()
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
	f.await("the first event", func() bool { return len(f.seen("t")) == 1 })
	f.exec("REVOKE CONNECT ON DATABASE postgres FROM w")
	f.exec("INSERT INTO outbox VALUES (2, 't', 'k', 'x')")
	err = <-ended
	var halt *Halt
	if !errors.As(err, &halt) || !strings.Contains(halt.Hint, `GRANT CONNECT ON DATABASE "postgres" TO "w"`) {
		t.Errorf("it ends with %v, want the hint to grant CONNECT", err)
	}
	again := New(f.relay.cfg).Run(ctx)
	if !errors.As(again, &halt) || !strings.Contains(halt.Hint, "GRANT CONNECT") {
		t.Errorf("a start ends with %v, want the hint to grant CONNECT", again)
	}
}
