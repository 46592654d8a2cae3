package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walpost/walpost/integration/faults"
	"github.com/walpost/walpost/integration/servers"
	"github.com/walpost/walpost/integration/wait"
	"github.com/walpost/walpost/internal/pgserver"
)

// physicalSlot is the slot on the primary that its standby reads from.
const physicalSlot = "standby"

// Standby is a physical standby of the test's own Postgres, which keeps a copy of the failover
// slots.
type Standby struct {
	Server *pgserver.Server
	Line   *faults.Proxy // between the standby and its primary
}

// Standby gives the test's own Postgres a standby, until the test ends. From then on the address of
// the database names both servers, and leads to whichever is the primary.
func (e *Env) Standby(t testing.TB) *Standby {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// A copy of a stopped server: pg_basebackup is not among the programs that the harness fetches.
	must(e.Server.Stop(ctx, pgserver.Fast))
	dir, err := os.MkdirTemp("", "walpost-standby-")
	must(err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a leftover in the temporary directory fails no test
	if out, err := exec.CommandContext(ctx, "cp", "-a", e.Server.DataDir(), dir).CombinedOutput(); err != nil {
		t.Fatalf("copy the data directory: %v: %s", err, out)
	}
	must(os.WriteFile(filepath.Join(dir, "data", "standby.signal"), nil, 0o644))
	must(e.Server.Restart(ctx))
	e.Exec(t, "SELECT pg_create_physical_replication_slot($1, true)", physicalSlot)

	primary := fmt.Sprintf("127.0.0.1:%d", e.Server.Port())
	line := faults.StartProxy(t, primary)
	_, port, _ := strings.Cut(line.Addr(), ":")
	server, err := pgserver.Start(ctx, pgserver.Options{Major: e.Server.Major(), Dir: dir, Settings: map[string]string{
		"fsync": "off", "hot_standby_feedback": "on", "sync_replication_slots": "on", "primary_slot_name": physicalSlot,
		"primary_conninfo": fmt.Sprintf("host=127.0.0.1 port=%s user=postgres dbname=%s", port, e.Database),
	}})
	must(err)
	closeAtEnd(t, server)
	dumpOnFailure(t, "the standby", server.LogTail)
	both := fmt.Sprintf("%s,127.0.0.1:%d", primary, server.Port())
	e.Address = strings.Replace(e.Address, primary, both, 1) + "&target_session_attrs=primary"
	return &Standby{server, line}
}

// AwaitSlot returns when the standby could go on with the slot of the test: a copy that is
// temporary still would be dropped by the promotion. It takes a relay that moves the slot.
func (s *Standby) AwaitSlot(t testing.TB, e *Env) {
	t.Helper()
	wait.For(t, 90*time.Second, "the copy of the slot on the standby", func() bool {
		// A slot can move as far as one only, and the server itself logs few.
		e.Exec(t, "SELECT pg_log_standby_snapshot()")
		return s.value(t, e, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND synced AND NOT temporary", e.Slot) == "1"
	})
}

// Promote makes the standby the primary, and returns where the former timeline ended, as its pos
// would begin.
func (s *Standby) Promote(t testing.TB, e *Env) (ended string) {
	t.Helper()
	if s.value(t, e, "SELECT pg_promote(true, 60)") != "true" {
		t.Fatal("the standby was not promoted")
	}
	history := s.value(t, e, "SELECT pg_read_file('pg_wal/00000002.history')")
	var timeline, high, low uint32
	if _, err := fmt.Sscanf(history, "%d\t%X/%X", &timeline, &high, &low); err != nil {
		t.Fatalf("read timeline history %q: %v", history, err)
	}
	return fmt.Sprintf("%08X-%08X%08X", timeline, high, low)
}

// value asks the standby itself, whoever is the primary.
func (s *Standby) value(t testing.TB, e *Env, sql string, args ...any) string {
	t.Helper()
	return (&servers.DB{Address: s.Server.URL(e.Database)}).Value(t, sql, args...)
}
