package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walpost/walpost/integration/servers"
)

// TestBadSettings gives many faults at once: each is listed, with its flag and variable, and
// nothing starts.
func TestBadSettings(t *testing.T) {
	t.Parallel()
	env := &Env{
		Brokers: []string{""}, Prefix: "a b.", Table: "a.b.c", Slot: "My-Slot", Publication: "",
		StateTopic: "no topic", DB: &servers.DB{},
	}
	code, output := env.Walpost(t, []string{
		"WALPOST_DELIVERY=perhaps", "WALPOST_HTTP_ADDR=nowhere",
		"WALPOST_LOG_LEVEL=loud", "WALPOST_DRAIN_TIMEOUT=soon",
	}, "run", "--nonsense")
	if code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
	for _, fault := range []string{
		"--postgres-url (WALPOST_POSTGRES_URL, postgres_url)", "--kafka-brokers (WALPOST_KAFKA_BROKERS", "--table (WALPOST_TABLE", "--slot (WALPOST_SLOT",
		"--topic (WALPOST_TOPIC", "--state-topic (WALPOST_STATE_TOPIC", "--delivery (WALPOST_DELIVERY", "--http-addr (WALPOST_HTTP_ADDR",
		"--log-level (WALPOST_LOG_LEVEL", "--drain-timeout (WALPOST_DRAIN_TIMEOUT", "--nonsense",
	} {
		if !strings.Contains(output, fault) {
			t.Errorf("not listed: %s", fault)
		}
	}
	if t.Failed() {
		t.Log(output)
	}
}

func TestUnknownKeyInTheFile(t *testing.T) {
	t.Parallel()
	env := &Env{
		Brokers: []string{"127.0.0.1:1"}, Prefix: "p.", Table: "outbox", Slot: "s", Publication: "p",
		StateTopic: "s", DB: &servers.DB{Address: "postgres://x@127.0.0.1:1/x"},
	}
	file := filepath.Join(t.TempDir(), "walpost.yaml")
	if err := os.WriteFile(file, []byte("slot: s\nkafka_broker: typo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, output := env.Walpost(t, []string{"WALPOST_CONFIG=" + file}, "run")
	if code != 2 || !strings.Contains(output, "kafka_broker") {
		t.Errorf("exit code %d:\n%s", code, output)
	}
}

// TestInitByARoleThatOwnsNothing runs as a role that may replicate and nothing else: init says what
// is missing, and run needs no more once an owner has applied what init --print prints.
func TestInitByARoleThatOwnsNothing(t *testing.T) {
	env := Setup(t, Needs{Postgres: 15, OwnPostgres: true})
	env.Exec(t, "CREATE ROLE relay LOGIN REPLICATION")
	env.Exec(t, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	owner := env.URL()
	env.Address = strings.Replace(owner, "postgres@", "relay@", 1)
	code, output := env.Walpost(t, nil, "init")
	if code != 1 || !strings.Contains(output, "init --print") && !strings.Contains(output, "GRANT") {
		t.Errorf("exit code %d, and nothing that helps:\n%s", code, output)
	}
	code, script := env.Walpost(t, nil, "init", "--print")
	if code != 0 || !strings.Contains(script, "CREATE TABLE") {
		t.Fatalf("init --print: %d\n%s", code, script)
	}
	env.Address = owner
	runScript(t, env, script)
	env.Address = strings.Replace(owner, "postgres@", "relay@", 1)
	if output := env.Init(t); !strings.Contains(output, "found") || strings.Contains(output, "created") {
		t.Errorf("init after the owner applied the script says:\n%s", output)
	}
	relay := env.Run(t)
	relay.Ready(t, 30e9)
	env.Address = owner
	insert(t, env, "order", "k", 3)
	awaitRecords(t, env, env.Prefix+"order", 3)
	relay.Stop(t)
}

// TestForeignTable accepts a table with other column names and types through the mapping, with
// payloads in bytea.
func TestForeignTable(t *testing.T) {
	env := Setup(t, Needs{Postgres: 18})
	env.Exec(t, `CREATE SCHEMA shop`)
	env.Exec(t, `CREATE TABLE shop.events (event_id bigint PRIMARY KEY, kind text NOT NULL, entity uuid NOT NULL, body bytea, extra int)`)
	env.Table = "shop.events"
	mapping := []string{"WALPOST_COLUMNS=id=event_id,aggregatetype=kind,aggregateid=entity,payload=body"}
	code, output := env.Walpost(t, mapping, "init")
	if code != 0 || !strings.Contains(output, "shop.events: found") {
		t.Fatalf("init: %d\n%s", code, output)
	}
	relay := env.Run(t, mapping...)
	relay.Ready(t, 30e9)
	env.Exec(t, `INSERT INTO shop.events VALUES (42, 'order', '0191d2a0-5b0c-7b1e-9c43-3d8a4c1c9d10', '\x00ff10', 1), (43, 'order', '0191d2a0-5b0c-7b1e-9c43-3d8a4c1c9d10', NULL, 1)`)
	records := awaitRecords(t, env, env.Prefix+"order", 2)
	if len(records) != 2 || string(records[0].Key) != "0191d2a0-5b0c-7b1e-9c43-3d8a4c1c9d10" ||
		string(records[0].Value) != "\x00\xff\x10" ||
		string(records[0].Headers[0].Value) != "42" || records[0].Headers[1].Key != "source" ||
		records[1].Value != nil {
		t.Errorf("records are %+v", records)
	}
	relay.Stop(t)
}

// TestPartitionedOutbox publishes the rows of partitions under the name of their root.
func TestPartitionedOutbox(t *testing.T) {
	env := Setup(t, Needs{Postgres: 15})
	env.Exec(t, `CREATE TABLE outbox (id uuid, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text, payload jsonb, headers jsonb,
		created_at timestamptz NOT NULL DEFAULT clock_timestamp()) PARTITION BY HASH (aggregateid)`)
	env.Exec(t, `CREATE TABLE outbox_0 PARTITION OF outbox FOR VALUES WITH (MODULUS 2, REMAINDER 0)`)
	env.Exec(t, `CREATE TABLE outbox_1 PARTITION OF outbox FOR VALUES WITH (MODULUS 2, REMAINDER 1)`)
	relay := running(t, env)
	for _, key := range []string{"a", "b", "c", "d"} {
		insert(t, env, "order", key, 10)
	}
	env.Exec(t, "DELETE FROM outbox") // rows may go at any time
	awaitRecords(t, env, env.Prefix+"order", 41)
	relay.Stop(t)
}
