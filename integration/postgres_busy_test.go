package integration

import (
	"context"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/walpost/walpost/integration/wait"
)

// TestBusyWalsender has Postgres decode a large transaction of another table for longer than a
// server may be silent. The relay waits for it and says so, and a stop meanwhile is a clean one.
func TestBusyWalsender(t *testing.T) {
	long(t)
	t.Parallel()
	for major, timeout := range map[int]string{14: "60s", 15: "60s", 18: "10min"} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			env := Setup(t, Needs{
				Postgres: major, OwnPostgres: true, Kafka: Faulty,
				Settings: map[string]string{"wal_sender_timeout": timeout, "logical_decoding_work_mem": "64kB"},
			})
			env.Init(t)
			env.Exec(t, "CREATE TABLE big (i int)")
			relay := env.Run(t)
			relay.Ready(t, 30*time.Second)
			insert(t, env, "order", "k", 1)
			awaitRecords(t, env, env.Prefix+"order", 1)

			free := keepBusy(t, env)
			insert(t, env, "order", "k", 1)
			relay.WaitLog(t, time.Minute, "Postgres is decoding a large transaction")
			pid := walsender(t, env)
			for deadline := time.Now().Add(100 * time.Second); time.Now().Before(deadline); time.Sleep(time.Second) {
				if now := walsender(t, env); now != pid {
					t.Fatalf("the walsender is another one: %s, before %s\n%s", now, pid, relay.Log())
				}
			}
			if relay.IsReady() || reconnects(t, relay) != 0 {
				t.Errorf("ready %t, %d reconnects", relay.IsReady(), reconnects(t, relay))
			}
			deadline := wait.In(10 * time.Second)
			relay.Stop(t)
			if deadline.Over() {
				t.Errorf("a stop while Postgres was busy took %s", deadline)
			}
			relay = env.Run(t)
			relay.WaitLog(t, 20*time.Second, "has the slot")
			free()
			awaitRecords(t, env, env.Prefix+"order", 2)
			relay.Ready(t, 30*time.Second)
			relay.Stop(t)
		})
	}
}

// keepBusy writes a large transaction, and slows the walsender down once it is decoding that. The
// returned function ends it.
func keepBusy(t *testing.T, env *Env) (free func()) {
	t.Helper()
	pid, err := strconv.Atoi(walsender(t, env))
	if err != nil {
		t.Fatal(err)
	}
	env.Exec(t, "INSERT INTO big SELECT generate_series(1, 3000000)")
	sent := ""
	Eventually(t, time.Minute, "the walsender to decode the transaction", func() bool {
		before := sent
		sent = env.Value(t, "SELECT coalesce(min(sent_lsn)::text, '') FROM pg_stat_replication WHERE sent_lsn < pg_current_wal_lsn()")
		time.Sleep(100 * time.Millisecond) // between two samples
		return sent != "" && sent == before
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ticker := time.NewTicker(5 * time.Millisecond); ctx.Err() == nil; {
			_ = syscall.Kill(pid, syscall.SIGSTOP) // it may have ended
			for range 120 {
				<-ticker.C
			}
			_ = syscall.Kill(pid, syscall.SIGCONT)
			<-ticker.C
		}
	}()
	free = func() { cancel(); <-ended }
	t.Cleanup(free)
	return free
}
