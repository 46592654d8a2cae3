package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/walpost/walpost/internal/pgserver"
)

// built is the directory of the program under test. It outlives the test that asks for it first.
var built string

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(built) // under the directory for temporary files
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	os.Exit(code)
}

var buildOnce = sync.OnceValues(func() (path string, err error) {
	if built, err = os.MkdirTemp("", "walpost-demo-test-"); err != nil {
		return "", err
	}
	path = filepath.Join(built, "walpost")
	if output, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, output)
	}
	return path, nil
})

// process is a run of the built program, with a directory for temporary files of its own.
type process struct {
	*exec.Cmd
	t      *testing.T
	tmp    string
	stdout io.ReadCloser
	stderr bytes.Buffer
	lines  *bufio.Scanner
}

// openDir makes a directory that the account which runs Postgres for root can enter; that of the
// testing package is closed.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "walpost-demo-test-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
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

func start(t *testing.T, args ...string) *process {
	t.Helper()
	path, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := pgserver.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command(path, args...), t: t, tmp: openDir(t)}
	p.Dir = t.TempDir() // no walpost.yaml lies there
	p.Env = append(os.Environ(), "TMPDIR="+p.tmp, "WALPOST_CACHE="+cache)
	p.Stderr = &p.stderr
	if p.stdout, err = p.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Process.Kill() }) // it has ended already, unless the test failed
	watchdog := time.AfterFunc(2*time.Minute, func() { _ = p.Process.Kill() })
	t.Cleanup(func() { watchdog.Stop() })
	p.lines = bufio.NewScanner(p.stdout)
	return p
}

// until reads lines to the first that matches.
func (p *process) until(pattern string) string {
	p.t.Helper()
	wanted := regexp.MustCompile(pattern)
	for p.lines.Scan() {
		if wanted.MatchString(p.lines.Text()) {
			return p.lines.Text()
		}
	}
	p.t.Fatalf("the output ended without %q; stderr: %s", pattern, p.stderr.String())
	return ""
}

// end reads the rest, waits, and expects an exit code.
func (p *process) end(code int) string {
	p.t.Helper()
	var rest strings.Builder
	for p.lines.Scan() {
		rest.WriteString(p.lines.Text() + "\n")
	}
	// The code says how it ended.
	_ = p.Wait()
	if got := p.ProcessState.ExitCode(); got != code {
		p.t.Fatalf("exit code %d, want %d\n%s\n%s", got, code, rest.String(), p.stderr.String())
	}
	return rest.String()
}

// leavesNothing expects no file and no process that has to do with the directory of the run.
func (p *process) leavesNothing() {
	p.t.Helper()
	if left, err := os.ReadDir(p.tmp); err != nil || len(left) > 0 {
		p.t.Errorf("temporary files stay behind: %v, %v", left, err)
	}
	if pids := processesOf(p.tmp); len(pids) > 0 {
		p.t.Errorf("processes stay behind: %v", pids)
	}
}

// processesOf finds the processes whose command line names a path, where there is a /proc.
func processesOf(path string) []string {
	var found []string
	commands, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is good
	for _, name := range commands {
		if line, err := os.ReadFile(name); err == nil && bytes.Contains(line, []byte(path)) {
			found = append(found, name)
		}
	}
	return found
}

func wantAll(t *testing.T, text string, patterns ...string) {
	t.Helper()
	for _, pattern := range patterns {
		if !regexp.MustCompile("(?m)" + pattern).MatchString(text) {
			t.Errorf("no match of %q in\n%s", pattern, text)
		}
	}
}

// ownServers are a Postgres and a broker that belong to the test.
func ownServers(t *testing.T) (*pgserver.Server, *kfake.Cluster) {
	t.Helper()
	postgres, err := pgserver.Start(t.Context(), pgserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := postgres.Close(); err != nil {
			t.Error(err)
		}
	})
	broker, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	return postgres, broker
}

func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }() // the answer is there
	var answer string
	if err := conn.QueryRow(t.Context(), sql).Scan(&answer); err != nil && !errors.Is(err, pgx.ErrNoRows) {
		t.Fatal(err)
	}
	return answer
}

func topicsOf(t *testing.T, broker *kfake.Cluster) []string {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(broker.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	topics, err := kadm.NewClient(client).ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return topics.Names()
}
