package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walpost/walpost/internal/pgserver"
)

// smallDisk puts the slots of a server, and what is spilled for them, on a file system of their
// own, and returns what makes it larger.
func smallDisk(t *testing.T, env *Env, size string) (grow func(size string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		untested(t, "needs root, to mount a small file system")
	}
	dir := filepath.Join(env.Server.DataDir(), "pg_replslot")
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		untested(t, "cannot tell who owns a directory here")
	}
	stopPostgres(t, env, pgserver.Fast, 15*time.Second)
	run := func(name string, args ...string) {
		t.Helper()
		if output, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, output)
		}
	}
	kept := filepath.Join(t.TempDir(), "kept")
	run("cp", "-a", dir, kept)
	options := "mode=0700,uid=" + strconv.Itoa(int(owner.Uid)) + ",gid=" + strconv.Itoa(int(owner.Gid)) + ",size="
	if output, err := exec.Command("mount", "-t", "tmpfs", "-o", options+size, "walpost-test", dir).CombinedOutput(); err != nil {
		untested(t, "cannot mount a small file system: "+strings.TrimSpace(string(output)))
	}
	t.Cleanup(func() {
		env.Server.Kill()
		run("umount", dir)
	})
	run("cp", "-a", kept+"/.", dir)
	if err := env.Server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	return func(size string) { run("mount", "-o", "remount,size="+size, dir) }
}

// TestDiskFull has no room for a large transaction that Postgres has to spill. The relay waits and
// says why, and goes on when there is room.
func TestDiskFull(t *testing.T) {
	matrix(t, func(t *testing.T, major int, delivery string) {
		env := Setup(t, Needs{Postgres: major, Settings: map[string]string{"logical_decoding_work_mem": "64kB"}})
		env.Init(t)
		grow := smallDisk(t, env, "3m")
		relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
		relay.Ready(t, 30*time.Second)
		work := env.Workload(t, WorkloadOptions{Rate: 200})
		work.WaitCommitted(t, 200)
		env.Exec(t, fmt.Sprintf(numbered, "k", 1, 60_000)) // more than 10 MB
		relay.WaitLog(t, time.Minute, "No space left on device")
		Eventually(t, 20*time.Second, "the relay to say why it is not ready", func() bool {
			_, reasons := relay.Get("/readyz")
			return strings.Contains(reasons, "No space left on device")
		})
		failed := strings.Count(relay.Log(), "No space left on device")
		Eventually(t, time.Minute, "another attempt", func() bool { return strings.Count(relay.Log(), "No space left on device") > failed })
		if !relay.IsLive() {
			t.Error("the relay is not alive")
		}
		grow("300m")
		relay.Ready(t, time.Minute)
		whole(t, env, work, relay)
	})
}
