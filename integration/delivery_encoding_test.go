package integration

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestBytesThatAreNoText publishes keys, types and payloads of a database that checks no encoding:
// byte for byte.
func TestBytesThatAreNoText(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major, OwnPostgres: true})
		execute(t, env.Server.URL("postgres"), "DROP DATABASE "+env.Database+" WITH (FORCE)")
		execute(t, env.Server.URL("postgres"), "CREATE DATABASE "+env.Database+" ENCODING 'SQL_ASCII' TEMPLATE template0")
		env.Exec(t, "CREATE TABLE outbox (id bigserial PRIMARY KEY, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text, payload text)")
		env.Init(t)
		relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
		relay.Ready(t, 30*time.Second)
		random := rand.New(rand.NewPCG(1, 2)) // the same at each run
		key := []byte("k\xff\xfe\x80")
		var payloads [][]byte
		conn := env.Connect(t)
		for i := range 300 {
			payload := make([]byte, random.IntN(400))
			for j := range payload {
				payload[j] = byte(1 + random.IntN(255)) // a text holds everything but the zero
			}
			payloads = append(payloads, payload)
			_, err := conn.Exec(t.Context(), `INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
				SELECT 'order', convert_from(decode($1, 'hex'), 'SQL_ASCII'), convert_from('\xe4', 'SQL_ASCII'), convert_from(decode($2, 'hex'), 'SQL_ASCII')`,
				hex.EncodeToString(key), hex.EncodeToString(payload))
			if err != nil {
				t.Fatal(err)
			}
			if i == 150 { // in the middle of them
				env.Exec(t, "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = $1", env.Slot)
			}
		}
		records := awaitRecords(t, env, env.Prefix+"order", len(payloads))
		if len(records) != len(payloads) {
			t.Fatalf("%d records of %d events", len(records), len(payloads))
		}
		for i, r := range records {
			if !bytes.Equal(r.Key, key) || !bytes.Equal(r.Value, payloads[i]) ||
				headerValue(r, "type") != "\xe4" || headerValue(r, "id") != fmt.Sprint(i+1) {
				t.Fatalf("record %d: id %s, key %x, value %x; want key %x, value %x", i, headerValue(r, "id"),
					r.Key, r.Value, key, payloads[i])
			}
		}
		relay.Stop(t)
	})
}
