package pgserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func start(t *testing.T, opts Options) *Server {
	t.Helper()
	opts.Progress = func(s string) { t.Log(s) }
	s, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// query runs statements on a connection of its own and returns the only value of the last one as
// text.
func query(t *testing.T, s *Server, statements ...string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.URL("postgres"))
	if err != nil {
		t.Fatalf("connect: %v\n%s", err, s.LogTail())
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var value string
	for i, statement := range statements {
		if i == len(statements)-1 {
			err = conn.QueryRow(t.Context(), statement).Scan(&value)
		} else {
			_, err = conn.Exec(t.Context(), statement)
		}
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	return value
}

// waitGone fails unless the process has ended, or is a zombie that its reaper has not collected
// yet.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond) // polls a condition of the kernel that nothing announces
	}
	t.Errorf("process %d is still there", pid)
}

func TestStartStop(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			s := start(t, Options{Major: major, Settings: map[string]string{"application_name": "it's"}})
			if s.Major() != major || !strings.HasPrefix(s.Version(), strconv.Itoa(major)+".") {
				t.Errorf("asked for %d, got %d (%s)", major, s.Major(), s.Version())
			}
			if got := query(t, s, "SHOW wal_level"); got != "logical" {
				t.Errorf("wal_level = %q", got)
			}
			if got := query(t, s, "SHOW server_version"); !strings.HasPrefix(got, s.Version()) {
				t.Errorf("server says %q, Version says %q", got, s.Version())
			}
			if got := query(t, s, "SHOW port"); got != strconv.Itoa(s.Port()) {
				t.Errorf("port = %q, want %d", got, s.Port())
			}
			for _, mode := range []StopMode{Smart, Fast, Immediate} {
				if err := s.Stop(t.Context(), mode); err != nil {
					t.Fatal(err)
				}
				if _, err := pgx.Connect(t.Context(), s.URL("postgres")); err == nil {
					t.Fatalf("mode %d: the server still answers", mode)
				}
				if err := s.Restart(t.Context()); err != nil {
					t.Fatal(err)
				}
				query(t, s, "SELECT 'alive'")
			}
		})
	}
}

func TestKillKeepsData(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	query(t, s, "CREATE TABLE kept (v text)", "INSERT INTO kept VALUES ('here')", "CHECKPOINT", "SELECT ''")
	port, pid := s.Port(), s.proc.PID
	children := s.proc.Children()
	if len(children) == 0 {
		t.Fatal("found no children of the postmaster")
	}
	s.Kill()
	for _, process := range append(children, pid) {
		waitGone(t, process)
	}
	s.Kill() // of a dead server: nothing
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Port() != port {
		t.Errorf("port changed from %d to %d", port, s.Port())
	}
	if got := query(t, s, "SELECT v FROM kept"); got != "here" {
		t.Errorf("read %q", got)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	s := start(t, Options{})
	pid, dir := s.proc.PID, filepath.Dir(s.DataDir())
	processes := append(s.proc.Children(), pid)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, process := range processes {
		waitGone(t, process)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestOwnDirectoryStays(t *testing.T) {
	t.Parallel()
	dir := reachableDir(t)
	first := start(t, Options{Dir: dir})
	query(t, first, "CREATE TABLE kept (v text)", "SELECT ''")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := start(t, Options{Dir: dir})
	if got := query(t, second, "SELECT count(*)::text FROM kept"); got != "0" {
		t.Errorf("count = %q", got)
	}
}

func TestNoOrphanAfterKill(t *testing.T) {
	t.Parallel()
	parent := exec.Command(os.Args[0], "-test.run=^$")
	parent.Env = append(os.Environ(), orphanDir+"="+reachableDir(t))
	output, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Error(err)
	}
	var processes []int
	for _, field := range strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(line)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Errorf("parent said %q", line)
		}
		processes = append(processes, pid)
	}
	if len(processes) < 2 {
		t.Errorf("parent said %q, not a postmaster and its children", line)
	}
	if err := parent.Process.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	_ = parent.Wait() // it was killed
	for _, process := range processes {
		waitGone(t, process)
	}
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	for _, major := range []int{13, 19} {
		if _, err := Start(t.Context(), Options{Major: major}); err == nil {
			t.Errorf("major %d was accepted", major)
		}
	}
	occupied := start(t, Options{})
	_, err := Start(t.Context(), Options{Port: occupied.Port()})
	if err == nil || !strings.Contains(err.Error(), "could not bind") {
		t.Errorf("a port in use: %v", err)
	}
}

// reachableDir is like t.TempDir, but below a directory that the account of the server may enter
// whatever the umask.
func reachableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "walpost-pgserver-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
