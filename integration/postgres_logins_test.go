package integration

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestLoginsAreFew: an inspection a second is no login a second. With the iterations of this role
// each costs the relay more than a hundred milliseconds.
func TestLoginsAreFew(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{OwnPostgres: true, Kafka: Faulty, Settings: map[string]string{"scram_iterations": "600000"}})
	env.Init(t)
	env.Exec(t, "CREATE ROLE relay LOGIN REPLICATION PASSWORD 'first'")
	askForPassword(t, env)
	relay := env.Run(t, "PGPASSWORD=first",
		"WALPOST_POSTGRES_URL="+strings.Replace(env.URL(), "postgres@", "relay@", 1))
	relay.Ready(t, 30*time.Second)
	sessions := func() int {
		n, err := strconv.Atoi(env.Value(t, "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	work := env.Workload(t, WorkloadOptions{Rate: 100, Writers: 1})
	work.WaitCommitted(t, 100)
	before, began := sessions(), time.Now()
	work.WaitCommitted(t, 1300)
	logins, took := sessions()-before-1, time.Since(began) // one of them is ours
	t.Logf("%d logins in %s", logins, took.Round(time.Second))
	if most := 2 + int(took/(5*time.Second)); logins > most {
		t.Errorf("%d logins in %s, want %d at most", logins, took.Round(time.Second), most)
	}
	whole(t, env, work, relay)
}
