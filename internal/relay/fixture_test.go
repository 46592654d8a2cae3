package relay

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/internal/pgserver"
	"github.com/walpost/walpost/sink"
)

// fixture is a Relay with a real Postgres and a fake broker, whose sessions a test drives itself:
// some faults sit between two steps of a session, and no signal from outside comes at that moment.
type fixture struct {
	t      *testing.T
	server *pgserver.Server
	broker *kfake.Cluster
	cfg    cdc.Config
	relay  *Relay
	first  handover // of the first session
	last   *session // nil = there was none
}

func setup(t *testing.T) *fixture {
	t.Helper()
	server, err := pgserver.Start(t.Context(), pgserver.Options{Major: 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{t: t, server: server}
	f.exec("CREATE TABLE outbox (id int PRIMARY KEY, aggregatetype text, aggregateid text, payload text)")
	f.exec("CREATE PUBLICATION walpost FOR TABLE outbox WITH (publish = 'insert')")
	f.exec("SELECT pg_create_logical_replication_slot('walpost', 'pgoutput')")
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
	f.first = newHandover()
	t.Cleanup(func() { f.left().closeAll() })
	return f
}

// exec runs SQL over a connection of its own: an open one would hold up a stop of the server.
func (f *fixture) exec(sql string) {
	f.t.Helper()
	conn, err := pgx.Connect(f.t.Context(), f.server.URL("postgres"))
	if err != nil {
		f.t.Fatal(err)
	}
	_, err = conn.Exec(f.t.Context(), sql)
	_ = conn.Close(context.Background())
	if err != nil {
		f.t.Fatalf("%s: %v", sql, err)
	}
}

// left is what the last session leaves to the next.
func (f *fixture) left() *handover {
	if f.last == nil {
		return &f.first
	}
	return &f.last.handover
}

// next is a session that has not begun.
func (f *fixture) next() *session {
	f.last = f.relay.newSession(*f.left())
	return f.last
}

// passes reports whether err goes away by itself.
func passes(err error) bool { return classify(err).class.passes() }

func (f *fixture) inspect() cdc.View {
	f.t.Helper()
	view, err := cdc.Inspect(f.t.Context(), f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	return view
}

// connect opens the relay's store and sink.
func (f *fixture) connect() *cdc.Conn {
	f.t.Helper()
	conn, err := cdc.Connect(f.t.Context(), f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(conn.Close)
	if err := f.next().open(conn.System); err != nil {
		f.t.Fatal(err)
	}
	return conn
}

// store makes a position the stored one.
func (f *fixture) store(end cdc.LSN) {
	f.t.Helper()
	state := checkpoint.State{Position: checkpoint.Position{End: end}, Timeline: 1, At: time.Now()}
	if err := f.left().store.Save(f.t.Context(), state); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) resume() *session {
	f.t.Helper()
	for {
		s := f.next()
		err := s.resume(f.t.Context())
		if err == nil {
			f.t.Cleanup(s.stream.Close)
			return s
		}
		if !passes(err) {
			f.t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // a backend of the test that has just ended may hold the slot for a moment
	}
}

// runFor lets a session stream for a while.
func (f *fixture) runFor(s *session, d time.Duration) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), d)
	defer cancel()
	if err := s.run(ctx); ctx.Err() == nil {
		f.t.Fatalf("the session ended: %v", err)
	}
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
