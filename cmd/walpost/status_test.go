package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/internal/ops"
)

// nobody is an address where nothing listens.
const nobody = "127.0.0.1:1"

func settings(url string, brokers ...string) config.Config {
	return config.Config{
		PostgresURL: url, Table: []string{"public.outbox"}, Slot: "walpost", Publication: "walpost",
		KafkaBrokers: brokers, Topic: "outbox.event.{aggregatetype}", StateTopic: "walpost.state", HTTPAddr: nobody,
	}
}

// status runs the command in both forms and returns what they printed.
func status(t *testing.T, cfg config.Config, code int) (text string, found serversStatus) {
	t.Helper()
	run := func(asJSON bool) []byte {
		var out bytes.Buffer
		command := &statusCommand{Config: cfg, JSON: asJSON}
		if got := exitCode(command.execute(t.Context(), &out, io.Discard), io.Discard); got != code {
			t.Errorf("exit code %d, want %d\n%s", got, code, out.String())
		}
		return out.Bytes()
	}
	if err := json.Unmarshal(run(true), &found); err != nil {
		t.Fatal(err)
	}
	return string(run(false)), found
}

func TestStatusOfRelay(t *testing.T) {
	t.Parallel()
	confirmed, lagged := "0/15377A0", 1536.0
	answer := ops.Status{
		Version: "1.2.3", Source: "7/walpost", State: "streaming", Ready: true, Up: map[string]bool{"kafka": true, "postgres": true},
		ConfirmedLSN: &confirmed, ConfirmedLagBytes: &lagged, Published: map[string]uint64{"a": 1, "b": 22}, InFlightEvents: 3,
		ProduceErrors: map[string]uint64{"too_large": 0, "other": 0},
	}
	cfg := settings("")
	cfg.HTTPAddr = relayThatSays(t, &answer)
	text, _ := status(t, cfg, exitOK)
	wantAll(t, text, `^relay +127\.0\.0\.1:\d+, walpost 1\.2\.3$`, `^state +streaming, ready$`, `^source +7/walpost$`,
		`^confirmed +0/15377A0, 1\.5 KiB behind$`, `^stored +not known$`, `^in flight +3 events`, `^published +a: 1\n +b: 22$`, `^produce errors +none$`, `^kafka +up, 0 reconnects$`)

	_, port, _ := strings.Cut(cfg.HTTPAddr, ":")
	cfg.HTTPAddr = ":" + port
	answer.Ready, answer.Reasons = false, []string{"Kafka is away", "so is Postgres"}
	text, found := status(t, cfg, exitFailed)
	wantAll(t, text, `^state +streaming, not ready$`, `^not ready because +Kafka is away\n +so is Postgres$`)
	if found.State != "streaming" || len(found.Reasons) != 2 {
		t.Errorf("got %+v", found)
	}
}

// relayThatSays returns the address of what answers as a relay does.
func relayThatSays(t *testing.T, answer *ops.Status) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/status" || json.NewEncoder(w).Encode(answer) != nil {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestStatusOfAnotherRelay(t *testing.T) {
	t.Parallel()
	cfg := settings("postgres://walpost@"+nobody+"/x?sslmode=disable", nobody)
	cfg.Slot = "billing"
	cfg.HTTPAddr = relayThatSays(t, &ops.Status{Source: "7/walpost", State: "streaming", Ready: true})
	text, found := status(t, cfg, exitFailed)
	wantAll(t, text, `^relay +another relay answers: the relay at 127\.0\.0\.1:\d+ serves slot "walpost", not "billing": set WALPOST_HTTP_ADDR`,
		`^postgres +down$`, `^kafka +down$`)
	if found.State != stranger || found.Source != "" || len(found.Reasons) != 2 {
		t.Errorf("got %+v", found)
	}

	// One that does not know its source yet cannot be told apart, so its word is not enough.
	cfg.HTTPAddr = relayThatSays(t, &ops.Status{State: "starting", Ready: true})
	status(t, cfg, exitFailed)
}

func TestStatusWithoutAnybody(t *testing.T) {
	t.Parallel()
	text, found := status(t, settings(""), exitFailed)
	wantAll(t, text, `^relay +no relay answers: .*127\.0\.0\.1:1.*refused$`, "not asked", `^wrong +it is not known whether a relay reads slot "walpost"`,
		`^what to do +set WALPOST_POSTGRES_URL`)
	if found.State != noRelay || found.Relay == "" || len(found.Up) != 0 || len(found.Reasons) != 1 {
		t.Errorf("got %+v", found)
	}

	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	cfg := settings("postgres://walpost@"+nobody+"/x?sslmode=disable", nobody)
	cfg.HTTPAddr = stranger.Listener.Addr().String()
	text, found = status(t, cfg, exitFailed)
	wantAll(t, text, `what answers at .* is not a relay`, `^postgres +down$`, `^kafka +down$`, `connect to Postgres: .*`, `state topic "walpost\.state": .*refused`)
	if len(found.Reasons) != 2 || found.Up[ops.PeerPostgres] || found.Up[ops.PeerKafka] {
		t.Errorf("got %+v", found)
	}
}

func TestStatusOfServers(t *testing.T) {
	t.Parallel()
	postgres, broker := ownServers(t)
	url, brokers := postgres.URL("postgres"), broker.ListenAddrs()
	cfg := settings(url, brokers...)

	text, _ := status(t, cfg, exitFailed)
	wantAll(t, text, `^slot +walpost: does not exist$`, `^wrong +replication slot "walpost" does not exist$`, `^what to do +.*walpost init`)

	options, err := newMigrationOptions(cfg, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := setUp(t.Context(), cfg, options, false, io.Discard); err != nil {
		t.Fatal(err)
	}
	text, found := status(t, cfg, exitFailed)
	wantAll(t, text, `^wrong +no relay reads slot "walpost"$`, "^what to do +once nothing else is wrong, start one with `walpost run`", `^source +\d+/walpost$`, `^postgres +up$`, `^publication +walpost of public\.outbox$`,
		`^slot +walpost, nobody reads it, WAL status reserved$`, `^confirmed +0/[0-9A-F]+, \d.* behind$`, `^kafka +up$`, `^stored +nothing for this slot`)
	if topics := topicsOf(t, broker); len(topics) > 0 {
		t.Errorf("status created %v", topics)
	}

	save := saved(t, cfg, found.Source, *found.ConfirmedLSN)
	text, found = status(t, cfg, exitFailed)
	wantAll(t, text, `^stored +`+*found.ConfirmedLSN+` on timeline 1 in topic walpost\.state, \d+s ago$`)

	statusOfEither(t, url, brokers, found)
	statusWithReader(t, cfg)

	// A relay of another cluster whose slot has the same name.
	other := cfg
	other.HTTPAddr = relayThatSays(t, &ops.Status{Source: "1/walpost", State: "streaming", Ready: true})
	text, _ = status(t, other, exitFailed)
	wantAll(t, text, `^relay +another relay answers: the relay at 127\.0\.0\.1:\d+ serves cluster "1", not "\d+": set WALPOST_HTTP_ADDR`)
	other.HTTPAddr = relayThatSays(t, &ops.Status{Source: found.Source, State: "streaming", Ready: true})
	status(t, other, exitOK)

	// A publication that was made anew since.
	query(t, url, "DROP PUBLICATION walpost")
	query(t, url, "CREATE PUBLICATION walpost FOR TABLE outbox WITH (publish = 'insert')")
	text, found = status(t, cfg, exitFailed)
	wantAll(t, text, `^wrong +publication "walpost" does not exist, or did not exist where the slot reads: it was made anew`, "^what to do +.*walpost init --accept-gap.*moves the slot behind it")
	var out bytes.Buffer
	if err := acceptGap(t.Context(), cfg, &out, io.Discard); err != nil || strings.Count(out.String(), *found.StoredLSN) != 2 {
		t.Errorf("%v, got %s, want the position %s kept", err, out.String(), *found.StoredLSN)
	}
	if text, _ = status(t, cfg, exitFailed); strings.Contains(text, "anew") {
		t.Errorf("got %s", text)
	}

	// A slot that somebody moved.
	query(t, url, "CREATE TABLE moved ()")
	query(t, url, "SELECT pg_replication_slot_advance('walpost', pg_current_wal_lsn())::text")
	text, _ = status(t, cfg, exitFailed)
	wantAll(t, text, `^wrong +slot "walpost" is at .* ahead of the stored position`)

	// Another cluster with a slot of the same name: only Postgres can tell which is ours.
	if err := save("1/walpost", "0/1"); err != nil {
		t.Fatal(err)
	}
	text, _ = status(t, settings("", brokers...), exitFailed)
	wantAll(t, text, `2 clusters stored a position`)
}

// statusOfEither asks each server without the other.
func statusOfEither(t *testing.T, url string, brokers []string, found serversStatus) {
	t.Helper()
	text, half := status(t, settings("", brokers...), exitFailed)
	wantAll(t, text, `^wrong +it is not known whether a relay reads`, `^stored +`+*found.ConfirmedLSN, `^source +`+found.Source+`$`)
	if half.ConfirmedLSN != nil || half.StoredLSN == nil {
		t.Errorf("got %+v", half)
	}
	if text, _ = status(t, settings(url), exitFailed); strings.Contains(text, "kafka") {
		t.Errorf("got %s", text)
	}
	wantAll(t, text, `^wrong +no relay reads slot`)
	text, _ = status(t, settings(url, nobody), exitFailed)
	wantAll(t, text, `^slot +walpost, nobody reads it`, `^kafka +down$`)
	text, _ = status(t, settings("postgres://walpost@"+nobody+"/x?sslmode=disable", brokers...), exitFailed)
	wantAll(t, text, `^postgres +down$`, `^stored +`+*found.ConfirmedLSN)
}

// statusWithReader asks while a relay runs whose HTTP server is off.
func statusWithReader(t *testing.T, cfg config.Config) {
	t.Helper()
	running := cfg
	running.HTTPAddr, running.Topic, running.MaxInFlightBytes, running.DrainTimeout = "", "events", 1<<20, 5*time.Second
	ctx, stop := context.WithCancel(t.Context())
	ended, began := make(chan error, 1), time.Now()
	go func() { ended <- runRelay(ctx, running, zerolog.Nop()) }()
	for query(t, cfg.PostgresURL, "SELECT active::text FROM pg_replication_slots WHERE slot_name = 'walpost'") != "true" {
		time.Sleep(10 * time.Millisecond)
	}
	text, found := status(t, running, exitOK)
	for deadline := began.Add(time.Minute); found.StoredAt == nil || !found.StoredAt.After(began); text, found = status(t, running, exitOK) {
		if time.Now().After(deadline) {
			t.Fatalf("the relay has not stored the publication with its position: %s", text)
		}
	}
	wantAll(t, text, `^relay +no relay answers: the settings turn`, `^slot +walpost, being read \(pid \d+ of Postgres\)`)
	if len(found.Reasons) > 0 {
		t.Errorf("got %q", found.Reasons)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for query(t, cfg.PostgresURL, "SELECT active::text FROM pg_replication_slots WHERE slot_name = 'walpost'") != "false" {
		time.Sleep(10 * time.Millisecond)
	}
}

// saved stores a position as a relay does, and returns a function that stores more.
func saved(t *testing.T, cfg config.Config, source, position string) func(source, position string) error {
	t.Helper()
	save := func(source, position string) error {
		options, err := cfg.KafkaOptions()
		if err != nil {
			return err
		}
		store, err := checkpoint.NewStore(options, cfg.StateTopic, source, zerolog.Nop())
		if err != nil {
			return err
		}
		defer store.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		end, err := pglogrepl.ParseLSN(position)
		_, _, loadErr := store.Load(ctx) // creates the topic
		return errors.Join(err, loadErr, store.Save(ctx, checkpoint.State{Position: checkpoint.Position{End: end}, Timeline: 1, At: time.Now()}))
	}
	if err := save(source, position); err != nil {
		t.Fatal(err)
	}
	return save
}

// TestStatusBehindAnOpenTransaction: a Kafka transaction that somebody left open on the state topic
// hides what was stored behind it. That is no gap: a relay that starts waits for its end.
func TestStatusBehindAnOpenTransaction(t *testing.T) {
	t.Parallel()
	postgres, broker := ownServers(t)
	cfg := settings(postgres.URL("postgres"), broker.ListenAddrs()...)
	options, err := newMigrationOptions(cfg, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := setUp(t.Context(), cfg, options, false, io.Discard); err != nil {
		t.Fatal(err)
	}
	_, found := status(t, cfg, exitFailed)
	saved(t, cfg, found.Source, "0/1")
	text, _ := status(t, cfg, exitFailed)
	wantAll(t, text, `^wrong +slot "walpost" is at 0/[0-9A-F]+, ahead of the stored position 0/1`)

	open, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...), kgo.TransactionalID("walpost/8/walpost"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := open.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := open.ProduceSync(t.Context(), &kgo.Record{Topic: cfg.StateTopic, Key: []byte("8/walpost"), Value: []byte("{}")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	text, _ = status(t, cfg, exitFailed)
	wantAll(t, text, `^wrong +an open Kafka transaction hides the end of state topic "walpost.state"`, `^what to do +.*ask again`)
	if strings.Contains(text, "was moved or re-created") {
		t.Errorf("a false alarm: %s", text)
	}
}
