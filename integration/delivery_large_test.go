package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration/checker"
	"github.com/walpost/walpost/integration/wait"
)

// largeRows is how many rows the large transaction has, without WALPOST_TEST_ROWS.
const largeRows = 1_000_000

// TestOneLargeTransaction has a relay publish one transaction that is larger than any memory should
// be, and kills it in the middle. Exactly once, the transaction spans many Kafka transactions, of
// which the brokers give up none but the one that the kill leaves open.
func TestOneLargeTransaction(t *testing.T) {
	rows := largeRows
	if text := os.Getenv("WALPOST_TEST_ROWS"); text != "" {
		var err error
		if rows, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, delivery := range deliveries {
		t.Run(delivery, func(t *testing.T) {
			env := Setup(t, Needs{})
			env.Init(t)
			env.CreateTopic(t, env.Prefix+"order", eventPartitions, nil)
			env.Exec(t, fmt.Sprintf(`INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
				SELECT gen_random_uuid(), 'order', (i %% 1000)::text, 'Placed', jsonb_build_object('n', i) FROM generate_series(0, %d) i`, rows-1))
			seen := &largeCheck{t: t, last: map[string]int{}}
			c, err := checker.NewConsumer(env.Brokers, env.Prefix)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			patience := time.Duration(60+rows/10_000) * time.Second
			memory := func(relay *Relay) {
				peak := residentPeakMiB(t, relay.PID())
				if t.Logf("peak memory of the relay %d MiB", peak); peak > 200 {
					t.Errorf("the relay had %d MiB of memory", peak)
				}
			}
			relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
			relay.Ready(t, 60*time.Second)
			Eventually(t, patience, "a quarter to be published", func() bool { return published(t, env, relay, "order") >= float64(rows)/4 })
			memory(relay)
			relay.Kill()
			relay = env.Run(t, "WALPOST_DELIVERY="+delivery)
			relay.Ready(t, 60*time.Second)
			for deadline := wait.In(patience); seen.distinct < rows; time.Sleep(50 * time.Millisecond) {
				if _, err := c.Drain(t.Context(), seen.add); err != nil {
					t.Fatal(err)
				}
				if deadline.Over() {
					t.Fatalf("%d of %d events are there after %s", seen.distinct, rows, deadline)
				}
			}
			memory(relay)
			relay.Stop(t)
			if _, err := c.Drain(t.Context(), seen.add); err != nil {
				t.Fatal(err)
			}
			inside := statesInside(t, env)
			t.Logf("%d repeats, %d positions stored inside the transaction", seen.repeats, inside)
			if delivery == exactly && seen.repeats > 0 || seen.repeats > 8*inAMiB { // what may be in flight
				t.Errorf("%d repeats", seen.repeats)
			}
			if inside < 3 {
				t.Errorf("%d positions were stored inside the transaction, want many", inside)
			}
			for line := range strings.Lines(relay.Log()) {
				// An overloaded machine may make it wait for a server, which loses nothing.
				if strings.Contains(line, `"level":"error"`) || strings.Contains(line, `"level":"warn"`) &&
					!strings.Contains(line, "nothing is lost") {
					t.Errorf("a relay without trouble says: %s", line)
				}
			}
		})
	}
}

// largeCheck sees that the events of each aggregate come one after the other. It remembers the last
// of each alone.
type largeCheck struct {
	t                 *testing.T
	last              map[string]int // the number behind the last of the aggregate
	distinct, repeats int
}

func (l *largeCheck) add(r *kgo.Record, _ int32) {
	var payload struct{ N int }
	if err := json.Unmarshal(r.Value, &payload); err != nil {
		l.t.Fatalf("%s/%d@%d: %v", r.Topic, r.Partition, r.Offset, err)
	}
	key := string(r.Key)
	want, known := l.last[key]
	if !known {
		want, _ = strconv.Atoi(key)
	}
	switch {
	case payload.N < want:
		l.repeats++
	case payload.N == want:
		l.distinct++
		l.last[key] = want + 1000
	default:
		l.t.Fatalf("%s/%d@%d: event %d of aggregate %s, want %d", r.Topic, r.Partition, r.Offset, payload.N, key, want)
	}
}

// statesInside counts the stored positions that lie inside a transaction.
func statesInside(t *testing.T, env *Env) int {
	t.Helper()
	c, err := checker.NewConsumer(env.Brokers, env.StateTopic)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	inside := 0
	_, err = c.Drain(t.Context(), func(r *kgo.Record, _ int32) {
		var state struct {
			Rows int `json:"rows_done"`
		}
		if err := json.Unmarshal(r.Value, &state); err != nil {
			t.Fatal(err)
		}
		if state.Rows > 0 {
			inside++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return inside
}

// TestLargerThanARequest: the topic takes an event that no request of the brokers' default size can
// carry. And a backlog of more than that, of many partitions, is sent in several requests.
func TestLargerThanARequest(t *testing.T) {
	env := Setup(t, Needs{Postgres: 16, Kafka: Own})
	env.CreateTopic(t, env.Prefix+"many", 150, nil)
	env.CreateTopic(t, env.Prefix+"big", 1, map[string]string{"max.message.bytes": "150000000"})
	env.Init(t)
	relay := env.Run(t, "WALPOST_MAX_IN_FLIGHT_BYTES=256MiB")
	relay.Ready(t, 30*time.Second)
	insert(t, env, "many", "k", 1)
	awaitRecords(t, env, env.Prefix+"many", 1)
	env.Kafka.Kill(0)
	env.Exec(t, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
		SELECT gen_random_uuid(), 'many', i::text, 'Happened', to_jsonb(repeat('x', 100000)) FROM generate_series(1, 2400) i`)
	Eventually(t, 60*time.Second, "everything in flight", func() bool { return relay.Metrics(t)["walpost_in_flight_events"] == 2400 })
	if err := env.Kafka.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 90*time.Second, "the backlog to be published",
		func() bool { return published(t, env, relay, "many") == 2401 })
	env.Exec(t, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) SELECT gen_random_uuid(), 'big', 'k', 'Happened', to_jsonb(repeat('x', 110000000))`)
	halts(t, relay, "MESSAGE_TOO_LARGE", "more than 100 MiB")
}
