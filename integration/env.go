package integration

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration/faults"
	"github.com/walpost/walpost/integration/servers"
	"github.com/walpost/walpost/internal/pgserver"
)

// KafkaKind is which broker a test gets.
type KafkaKind int

// The kinds of broker. A test must not stop or configure the shared one.
const (
	Shared   KafkaKind = iota // one real broker for all tests
	Own                       // one real broker of its own
	OwnThree                  // three real brokers of its own
	Faulty                    // a fake broker of its own, which fails on demand
)

// Needs say what a test needs. The zero value is a database of the shared newest Postgres and the
// shared broker.
type Needs struct {
	Postgres    int               // major version; 0 is the newest
	OwnPostgres bool              // a server of its own, which the test may stop, kill and restart
	Settings    map[string]string // of the own server
	Kafka       KafkaKind
	KafkaConfig map[string]string // of own brokers
	KafkaHeap   string            // of own brokers at most, as 2g; empty is little
	KafkaDelay  time.Duration     // of the line to own brokers, in each direction
	Clocks      bool              // that can be stepped, of own Postgres, own brokers and the relay
}

// Env is a database, a broker and the names that belong to one test. Everything ends with the test.
type Env struct {
	*servers.DB

	Database string           // its name
	Server   *pgserver.Server // the Postgres if it runs as our child; to be stopped only if it is the test's own
	Kafka    *servers.Kafka   // the real brokers if they run as our children; likewise
	Fake     *servers.Fake    // the fake broker of a Faulty test
	Brokers  []string
	Login    []kgo.Opt      // of the test's own clients, where the brokers ask for one
	Clocks   *faults.Clocks // where the test needs them

	Prefix      string // of the event topics: the topic of an aggregate type is Prefix + type
	StateTopic  string
	Slot        string
	Publication string
	Table       string
}

var envCount atomic.Int64

// Setup gives the test what it needs, or skips it where that cannot be had. It creates the database
// but nothing in it: see Init and CreateOutbox.
func Setup(t testing.TB, needs Needs) *Env {
	t.Helper()
	if testing.Short() {
		t.Skip("needs real servers")
	}
	ctx, cancel := context.WithTimeout(t.Context(), servers.StartTimeout)
	defer cancel()
	n := envCount.Add(1)
	e := &Env{
		Database: fmt.Sprintf("walpost%d", n), Prefix: fmt.Sprintf("t%d.", n),
		StateTopic: fmt.Sprintf("walpost.state%d", n),
		Slot:       fmt.Sprintf("walpost%d", n), Publication: "walpost", Table: "public.outbox",
	}
	dumpOnFailure(t, "postgres", func() string {
		if e.Server == nil {
			return ""
		}
		return e.Server.LogTail()
	})
	if needs.Clocks {
		e.Clocks = faults.NewClocks(t)
	}
	admin := e.setupPostgres(ctx, t, needs)
	e.setupKafka(ctx, t, needs)
	if needs.Kafka == Shared {
		t.Cleanup(func() { e.deleteTopics(t) })
	}
	e.createDatabase(t, admin)
	return e
}

// setupPostgres returns the address of the database postgres.
func (e *Env) setupPostgres(ctx context.Context, t testing.TB, needs Needs) string {
	t.Helper()
	major := needs.Postgres
	if major == 0 {
		major = pgserver.NewestMajor
	}
	if !needs.OwnPostgres && needs.Settings == nil {
		shared, err := servers.SharedPostgres(ctx, major)
		if err != nil {
			servers.Missing(t, err)
		}
		e.Server = shared.Local
		return shared.Address
	}
	var vars []string
	if e.Clocks != nil {
		vars = e.Clocks.Postgres.Vars
	}
	own, err := servers.StartPostgres(ctx, major, needs.Settings, vars...)
	if err != nil {
		servers.Missing(t, err)
	}
	servers.Note("postgres %s (local programs)", own.Version)
	closeAtEnd(t, own.Local)
	e.Server = own.Local
	return own.Address
}

func (e *Env) setupKafka(ctx context.Context, t testing.TB, needs Needs) {
	t.Helper()
	switch needs.Kafka {
	case Faulty:
		e.Fake = servers.StartFake(t)
		e.Brokers = e.Fake.Brokers()
		servers.Note("kfake (own process)")
	case Own, OwnThree:
		count := 1
		if needs.Kafka == OwnThree {
			count = 3
		}
		options := servers.KafkaOptions{Brokers: count, Config: needs.KafkaConfig, Heap: needs.KafkaHeap}
		if e.Clocks != nil {
			options.Env = e.Clocks.Kafka.Vars
		}
		if needs.KafkaDelay > 0 {
			options.Advertise = func(address string) string {
				line := faults.StartProxy(t, address)
				line.Shape(needs.KafkaDelay, 0)
				return line.Addr()
			}
		}
		own, err := servers.StartKafka(ctx, options, servers.Progress)
		if err != nil {
			servers.Missing(t, err)
		}
		t.Cleanup(own.Close)
		dumpOnFailure(t, "kafka", own.LogTail)
		servers.Note("kafka %s (jars, %s)", servers.KafkaVersion, brokers(count))
		e.Kafka, e.Brokers = own, own.Brokers()
	case Shared:
		shared, err := servers.SharedBroker(ctx)
		if err != nil {
			servers.Missing(t, err)
		}
		e.Kafka, e.Brokers = shared.Cluster, shared.Seeds
	}
}

func brokers(count int) string {
	if count == 1 {
		return "1 broker"
	}
	return fmt.Sprintf("%d brokers", count)
}

// createDatabase registers what removes the database and its slots again, so that they hold no WAL
// of a shared server.
func (e *Env) createDatabase(t testing.TB, admin string) {
	t.Helper()
	address, err := url.Parse(admin)
	if err != nil {
		t.Fatalf("parse address of postgres: %v", err)
	}
	address.Path = "/" + e.Database
	e.DB = &servers.DB{Address: address.String()}
	server := servers.DB{Address: admin}
	server.Exec(t, "DROP DATABASE IF EXISTS "+e.Database+" WITH (FORCE)")
	server.Exec(t, "CREATE DATABASE "+e.Database)
	t.Cleanup(func() { e.dropDatabase(t, admin) })
}

func (e *Env) dropDatabase(t testing.TB, admin string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return // the test left its own server stopped
	}
	defer func() { _ = conn.Close(ctx) }()
	for {
		// The walsender of a relay that was killed may need a moment to find out.
		_, err = conn.Exec(ctx, `SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = $1 AND active`, e.Database)
		if err == nil {
			_, err = conn.Exec(ctx, `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1`, e.Database)
		}
		if err == nil {
			_, err = conn.Exec(ctx, "DROP DATABASE IF EXISTS "+e.Database+" WITH (FORCE)")
		}
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Logf("drop database %s: %v", e.Database, err)
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// BrokerPIDs are the processes of the test's own brokers.
func (e *Env) BrokerPIDs() []int {
	switch {
	case e.Fake != nil:
		return []int{e.Fake.PID()}
	case e.Kafka != nil:
		return e.Kafka.PIDs()
	default:
		return nil
	}
}

// closeAtEnd closes with the end of the test.
func closeAtEnd(t testing.TB, c io.Closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// dumpOnFailure prints what a server or a relay said, if the test failed.
func dumpOnFailure(t testing.TB, name string, tail func() string) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		if text := strings.TrimSpace(tail()); text != "" {
			t.Logf("end of the log of %s:\n%s", name, text)
		}
	})
}
