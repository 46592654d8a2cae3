package integration

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration/wait"
)

// hostile are settings that change what our sessions say and are told, or end them.
func hostile(major int) map[string]string {
	settings := map[string]string{
		"client_encoding": "LATIN1", "client_min_messages": "error", "datestyle": "German", "timezone": "Asia/Kolkata", "intervalstyle": "sql_standard",
		"extra_float_digits": "-15", "bytea_output": "escape", "search_path": "evil, pg_catalog", "quote_all_identifiers": "on",
		"standard_conforming_strings": "off", "escape_string_warning": "off", "row_security": "off", "default_transaction_isolation": "serializable",
		"default_transaction_read_only": "on", "default_transaction_deferrable": "on", "statement_timeout": "1", "lock_timeout": "1",
		"idle_in_transaction_session_timeout": "1", "idle_session_timeout": "1", "jit_above_cost": "0", "array_nulls": "off",
	}
	if major >= 17 {
		settings["transaction_timeout"] = "200" // not known to all versions, so it is set once the session has begun
	}
	return settings
}

// evil has tables of the names of catalogs, so that a search path can put them first.
const evil = `CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC; CREATE TABLE evil.pg_settings (name text, setting text);
	CREATE TABLE evil.pg_class (oid oid); CREATE TABLE evil.pg_publication (pubname text); CREATE TABLE evil.pg_replication_slots (slot_name text);
	GRANT SELECT ON ALL TABLES IN SCHEMA evil TO PUBLIC`

// TestHostileSettings: what a role, a database or the URL set for every session changes no event,
// and holds nothing up.
func TestHostileSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		major int
		way   string
	}{{14, "database"}, {18, "role"}, {18, "url"}, {14, "options"}} {
		t.Run(fmt.Sprint(c.major, " by ", c.way), func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{Postgres: c.major, OwnPostgres: true})
			runScript(t, env, evil)
			const role = "relay"
			env.Exec(t, "CREATE ROLE "+role+" LOGIN SUPERUSER")
			runScript(t, env, `CREATE TABLE outbox (id float8 NOT NULL, aggregatetype text NOT NULL, aggregateid timestamptz NOT NULL, type interval, payload bytea, headers jsonb);
				CREATE TABLE words (id date NOT NULL, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text, payload text, "größe" text)`)
			env.Table = "outbox,words"
			plain := env.Address
			vars := []string{
				"WALPOST_TOPIC=" + env.Prefix + "{aggregatetype}",
				"WALPOST_POSTGRES_URL=" + strings.Replace(plain, "postgres@", role+"@", 1),
			}
			if code, output := env.Walpost(t, vars, "init"); code != 0 {
				t.Fatalf("init: %d\n%s", code, output)
			}
			rows := `SET timezone = 'UTC'; SET datestyle = 'ISO, MDY'; INSERT INTO outbox VALUES (0.1::float8 + 0.2, 'order', '2026-02-01 10:00:00+00', '1 day 2 hours', '\x00ff5c', '{"h": "ü"}');
				INSERT INTO words VALUES ('2026-02-01', 'order', 'Müller', '12', 'Größe', 'x')`
			relay := env.Run(t, vars...)
			relay.Ready(t, 30*time.Second)
			runScript(t, env, rows)
			awaitRecords(t, env, env.Prefix+"order", 2)
			relay.Stop(t)

			var alter, query, options []string
			for name, value := range hostile(c.major) {
				set := fmt.Sprintf("%s SET %s = '%s'", map[string]string{"database": "ALTER DATABASE " + env.Database, "role": "ALTER ROLE " + role}[c.way], name, value)
				if name == "search_path" {
					set = strings.ReplaceAll(set, "'", "")
				}
				alter = append(alter, set)
				query = append(query, name+"="+url.PathEscape(value))
				options = append(options, "-c "+strings.ReplaceAll(name+"="+value, " ", `\ `))
			}
			switch c.way {
			case "url":
				vars[1] += "&" + strings.Join(query, "&")
			case "options":
				vars[1] += "&options=" + strings.ReplaceAll(url.QueryEscape(strings.Join(options, " ")), "+", "%20")
			default:
				runScript(t, env, strings.Join(alter, "; "))
			}
			client := env.start(t, vars, "init")
			if code := client.Wait(t, time.Minute); code != 0 || !strings.Contains(client.Log(), "found") {
				t.Errorf("init: %d\n%s", code, client.Log())
			}
			relay = env.Run(t, vars...)
			relay.Ready(t, 30*time.Second)
			// The service's own session has none of them, whatever the database says.
			env.Address += "&statement_timeout=0&lock_timeout=0&idle_session_timeout=0&idle_in_transaction_session_timeout=0&default_transaction_read_only=off" +
				"&client_encoding=UTF8&search_path=public&standard_conforming_strings=on"
			runScript(t, env, rows)
			records := awaitRecords(t, env, env.Prefix+"order", 4)
			if len(records) != 4 {
				t.Fatalf("%d records, want 4", len(records))
			}
			sameTwice(t, records)
			Eventually(t, 20*time.Second, "positions to be confirmed", func() bool {
				status := relay.Status(t)
				return status["confirmed_lsn"] != nil && status["confirmed_lsn"] == status["stored_lsn"]
			})
			relay.Stop(t)
		})
	}
}

// sameTwice compares each record with that of the same row two later, whatever partitions they come
// from.
func sameTwice(t *testing.T, records []*kgo.Record) {
	t.Helper()
	seen := map[string]int{}
	for _, r := range records {
		text := fmt.Sprintf("%q %q", r.Key, r.Value)
		for _, h := range r.Headers {
			if h.Key != "pos" {
				text += fmt.Sprintf(" %s=%q", h.Key, h.Value)
			}
		}
		seen[text]++
	}
	for text, n := range seen {
		if n != 2 {
			t.Errorf("%d times, want twice: %s", n, text)
		}
	}
	for _, r := range records {
		if string(r.Key) == "Müller" && string(r.Value) == "Größe" {
			return
		}
	}
	t.Error("no record of Müller")
}

// TestLatinDatabase: events of a database in another encoding are UTF-8, also names of tables and
// columns outside ASCII.
func TestLatinDatabase(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major, OwnPostgres: true})
		execute(t, env.Server.URL("postgres"), "DROP DATABASE "+env.Database+" WITH (FORCE)")
		execute(t, env.Server.URL("postgres"), "CREATE DATABASE "+env.Database+" ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
		env.Address += "&client_encoding=UTF8"
		runScript(t, env, `CREATE TABLE "Aufträge" (id uuid NOT NULL DEFAULT gen_random_uuid(), aggregatetype text NOT NULL, "schlüssel" text NOT NULL, payload jsonb, headers jsonb)`)
		vars := []string{
			`WALPOST_TABLE="Aufträge"`, "WALPOST_COLUMNS=aggregateid=schlüssel",
			"WALPOST_DELIVERY=" + delivery,
		}
		if code, output := env.Walpost(t, vars, "init"); code != 0 {
			t.Fatalf("init: %d\n%s", code, output)
		}
		relay := env.Run(t, vars...)
		relay.Ready(t, 30*time.Second)
		env.Exec(t, `INSERT INTO "Aufträge" (aggregatetype, "schlüssel", payload, headers) VALUES ('order', 'Müller', '{"größe": "ß"}', '{"überschrift": "é"}')`)
		records := awaitRecords(t, env, env.Prefix+"order", 1)
		if r := records[0]; string(r.Key) != "Müller" || string(r.Value) != `{"größe": "ß"}` ||
			headerValue(r, "überschrift") != "é" {
			t.Errorf("key %q, value %q, headers %v", r.Key, r.Value, r.Headers)
		}
		relay.Stop(t)
	})
}

// TestPostgresPasswordRotated changes the role's password and then the line in its password file,
// and back the other way round.
func TestPostgresPasswordRotated(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{OwnPostgres: true})
	env.Init(t)
	env.Exec(t, "CREATE ROLE relay LOGIN REPLICATION PASSWORD 'first'")
	askForPassword(t, env)
	file := filepath.Join(t.TempDir(), "passwords")
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("*:*:*:relay:"+password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	relay := env.Run(t, "WALPOST_POSTGRES_URL="+strings.Replace(env.URL(), "postgres@", "relay@", 1)+"&passfile="+file)
	relay.Ready(t, 30*time.Second)
	for _, mend := range []func(){
		func() { write("second") },
		func() { env.Exec(t, "ALTER ROLE relay PASSWORD 'second'") },
	} {
		env.Exec(t, "ALTER ROLE relay PASSWORD 'second'")
		if !strings.Contains(relay.Log(), "is refused") {
			insert(t, env, "order", "k", 1)
			relay.WaitLog(t, 30*time.Second, `role \"relay\" is refused, with the password from password file `+file)
		} else {
			write("third")
			env.Exec(t, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", env.Slot)
			Eventually(t, 30*time.Second, "the relay to be not ready",
				func() bool { code, _ := relay.Get("/readyz"); return code == 503 })
			write("second")
		}
		if strings.Contains(relay.Log(), "second") || strings.Contains(relay.Log(), "first\"") {
			t.Error("the log has a password")
		}
		mend()
		insert(t, env, "order", "k", 1)
		end := walEnd(t, env)
		Eventually(t, 40*time.Second, "positions to be confirmed", func() bool { return confirmedLSN(t, env) >= end })
		relay.Ready(t, 30*time.Second)
	}
	relay.Stop(t)
}

// TestDarkHosts: addresses that accept and never answer, before the one that does, cost a moment at
// the start and nothing later.
func TestDarkHosts(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{})
	u, err := url.Parse(env.URL())
	if err != nil {
		t.Fatal(err)
	}
	var hosts []string
	for range 2 {
		// It takes connections, and nobody answers.
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		closeAtEnd(t, listener)
		hosts = append(hosts, listener.Addr().String())
	}
	good := u.Host
	u.Host = strings.Join(append(hosts, good), ",")
	vars := []string{"WALPOST_POSTGRES_URL=" + u.String()}
	deadline := wait.In(40 * time.Second)
	if code, output := env.Walpost(t, vars, "init"); code != 0 {
		t.Fatalf("init: %d\n%s", code, output)
	}
	relay := env.Run(t, vars...)
	relay.Ready(t, 30*time.Second)
	if code, output := env.Walpost(t, append(vars, "WALPOST_HTTP_ADDR="), "status"); code != 0 {
		t.Errorf("status: %d\n%s", code, output)
	}
	if deadline.Over() {
		t.Errorf("init, start and status took %s", deadline)
	}
	for i := range 3 {
		insert(t, env, "order", "k", 1)
		awaitConfirmed(t, env, awaitRecords(t, env, env.Prefix+"order", i+1)[i])
	}
	for _, dark := range hosts {
		if n := strings.Count(relay.Log(), `"address":"`+dark+`"`); n != 1 {
			t.Errorf("the log names %s %d times, want once", dark, n)
		}
	}
	relay.Stop(t)
}

// TestInitNamesASilentHost: it ends, instead of waiting for ever without a word.
func TestInitNamesASilentHost(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Kafka: Faulty})
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, listener)
	address := listener.Addr().String()
	code, output := env.Walpost(t, []string{"WALPOST_POSTGRES_URL=postgres://me@" + address + "/app?sslmode=disable&connect_timeout=2"}, "init")
	if code != 1 || !strings.Contains(output, address) {
		t.Errorf("init: %d\n%s", code, output)
	}
}
