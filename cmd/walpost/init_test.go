package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/internal/pgserver"
	"github.com/walpost/walpost/internal/relay"
)

// postgresOf starts a server of a major version, or of any for 0, that belongs to the test.
func postgresOf(t *testing.T, major int) *pgserver.Server {
	t.Helper()
	postgres, err := pgserver.Start(t.Context(), pgserver.Options{Major: major})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := postgres.Close(); err != nil {
			t.Error(err)
		}
	})
	return postgres
}

// initialize runs the command and returns what it printed for people.
func initialize(t *testing.T, cfg config.Config, failover bool, code int) string {
	t.Helper()
	var out bytes.Buffer
	command := &initCommand{Config: cfg, Failover: failover}
	if got := exitCode(command.execute(t.Context(), &out, &out), &out); got != code {
		t.Errorf("exit code %d, want %d\n%s", got, code, out.String())
	}
	return out.String()
}

// read holds the slot as a relay does, and returns what lets it go.
func read(t *testing.T, cfg config.Config) (stop func()) {
	t.Helper()
	stream, err := newStreamConfig(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := cdc.Connect(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Start(t.Context(), 0, false); err != nil {
		t.Fatal(err)
	}
	return func() {
		conn.Close()
		for query(t, cfg.PostgresURL, "SELECT active::text FROM pg_replication_slots") == "true" {
			time.Sleep(10 * time.Millisecond) // the walsender needs a moment to notice
		}
	}
}

func TestInitFailover(t *testing.T) {
	t.Parallel()
	for _, major := range []int{17, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			url := postgresOf(t, major).URL("postgres")
			cfg := settings(url)
			const failover = "SELECT failover::text FROM pg_replication_slots WHERE slot_name = 'walpost'"
			wantAll(t, initialize(t, cfg, false, exitOK), `^slot walpost: created$`)

			stop := read(t, cfg)
			wantAll(t, initialize(t, cfg, true, exitFailed), `^walpost: slot "walpost" has failover = false, and pid \d+ of Postgres is reading it: it was left so$`,
				`^walpost: what to do: stop whoever reads the slot .*ALTER_REPLICATION_SLOT "walpost" \(FAILOVER\)$`)
			stop()
			if got := query(t, url, failover); got != "false" {
				t.Errorf("failover = %s", got)
			}

			wantAll(t, initialize(t, cfg, true, exitOK), `^slot walpost: found, and synchronized to standbys from now on$`)
			if got := query(t, url, failover); got != "true" {
				t.Errorf("failover = %s", got)
			}
			wantAll(t, initialize(t, cfg, true, exitOK), `^slot walpost: found$`)
			query(t, url, "SELECT pg_drop_replication_slot('walpost')::text")
			wantAll(t, initialize(t, cfg, true, exitOK), `^slot walpost: created$`)
			if got := query(t, url, failover); got != "true" {
				t.Errorf("failover = %s", got)
			}
		})
	}
}

func TestInitFailoverOfOldServer(t *testing.T) {
	t.Parallel()
	url := postgresOf(t, 14).URL("postgres")
	text := initialize(t, settings(url), true, exitFailed)
	wantAll(t, text, `^walpost: Postgres 14\.\d+.* has no slots that standbys keep a copy of$`, `^walpost: what to do: leave out --failover`)
	if there := query(t, url, "SELECT count(*)::text FROM pg_class WHERE relname = 'outbox'"); there != "0" {
		t.Error("the table was made before the server was asked for its version")
	}
}

func TestTheServersWordComesFirst(t *testing.T) {
	t.Parallel()
	url, _, _ := strings.Cut(postgresOf(t, 0).URL("nosuch"), "?") // without its sslmode
	const word = `connect to Postgres at 127\.0\.0\.1:\d+: FATAL: database "nosuch" does not exist \(SQLSTATE 3D000\)$`
	wantAll(t, initialize(t, settings(url), false, exitFailed), `^walpost: `+word)
	text, _ := status(t, settings(url), exitFailed)
	wantAll(t, text, `^wrong +`+word)

	// Where nobody said anything, the attempts are all there is.
	text = initialize(t, settings("postgres://walpost@"+nobody+"/x"), false, exitFailed)
	wantAll(t, text, `^walpost: connect to Postgres: failed to connect`)
}

// TestInitInTwoParts goes the way of README: an owner applies the script, and the role that owns
// nothing reads. An owner who lacks REPLICATION cannot make the slot, which is last, so the role
// does.
func TestInitInTwoParts(t *testing.T) {
	t.Parallel()
	postgres := postgresOf(t, 0)
	admin := postgres.URL("postgres")
	query(t, admin, "CREATE ROLE app LOGIN")
	query(t, admin, "CREATE ROLE walpost LOGIN REPLICATION")
	query(t, admin, "CREATE DATABASE shop OWNER app")

	var script bytes.Buffer
	if err := (&initCommand{Config: settings(""), Print: true}).execute(t.Context(), &script, io.Discard); err != nil {
		t.Fatal(err)
	}
	owner, err := pgx.Connect(t.Context(), strings.Replace(postgres.URL("shop"), "postgres@", "app@", 1))
	if err != nil {
		t.Fatal(err)
	}
	_, err = owner.PgConn().Exec(t.Context(), script.String()).ReadAll()
	if err == nil || !strings.Contains(err.Error(), "replication slots") {
		t.Errorf("the owner made the slot: %v", err)
	}
	if err := owner.Close(t.Context()); err != nil {
		t.Error(err)
	}
	role := settings(strings.Replace(postgres.URL("shop"), "postgres@", "walpost@", 1))
	wantAll(t, initialize(t, role, false, exitOK), `^table public.outbox: found`, `^publication walpost: found`, `^slot walpost: created$`)
}

// TestAcceptGapFences: a relay with exactly-once delivery has let go of the slot and still commits
// a Kafka transaction, with a position in it. What the operator accepts is final: that commit
// fails.
func TestAcceptGapFences(t *testing.T) {
	t.Parallel()
	postgres, broker := ownServers(t)
	cfg := settings(postgres.URL("postgres"), broker.ListenAddrs()...)
	cfg.Delivery = config.ExactlyOnce
	options, err := newMigrationOptions(cfg, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := setUp(t.Context(), cfg, options, false, io.Discard); err != nil {
		t.Fatal(err)
	}
	_, found := status(t, cfg, exitFailed)
	saved(t, cfg, found.Source, *found.ConfirmedLSN)
	old, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...), kgo.TransactionalID(relay.TransactionalID(found.Source)))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := old.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := old.ProduceSync(t.Context(), &kgo.Record{Topic: cfg.StateTopic, Key: []byte("8/walpost"), Value: []byte("{}")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := acceptGap(t.Context(), cfg, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := old.EndTransaction(t.Context(), kgo.TryCommit); err == nil {
		t.Error("the relay of before still commits")
	}
}
