package process

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walpost/walpost/integration/wait"
	"github.com/walpost/walpost/internal/pgserver/child"
)

const (
	relayLog     = 4 << 20          // what is kept of the log of a relay
	answerLimit  = 10 * time.Second // for an answer of its HTTP server
	pollInterval = 20 * time.Millisecond
)

// Relay is a running, or ended, process of the built binary.
type Relay struct {
	addr string // of its HTTP server
	log  *child.Tail
	proc *child.Process
	http *http.Client
}

// Start runs a binary with variables; the environment of the tests does not configure it. addr is
// that of its HTTP server, or empty. The process is killed when the test ends.
func Start(t testing.TB, path, addr string, vars []string, args ...string) *Relay {
	t.Helper()
	r := &Relay{
		addr: addr,
		log:  child.NewTail(nil, relayLog),
		// Kept-alive connections would outlive the test.
		http: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
			DisableKeepAlives:  true,
			DisableCompression: true,
		}},
	}
	var err error
	r.proc, err = child.Start(child.Spec{
		Path: path, Args: args, Dir: t.TempDir(),
		Env: append(foreignVars(), vars...), Output: r.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Kill)
	return r
}

// foreignVars is the environment without what would configure the relay behind the back of the
// test.
func foreignVars() []string {
	var vars []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "WALPOST_") && !strings.HasPrefix(entry, "PG") {
			vars = append(vars, entry)
		}
	}
	if RaceBuilt() {
		vars = append(vars, "GOMAXPROCS=4")
	}
	return vars
}

// Addr is the address of its HTTP server.
func (r *Relay) Addr() string { return r.addr }

// PID is the process id.
func (r *Relay) PID() int { return r.proc.PID }

// Kill ends the process with SIGKILL and waits for it.
func (r *Relay) Kill() { r.proc.Kill() }

// Term sends SIGTERM and does not wait.
func (r *Relay) Term() { r.proc.Signal(syscall.SIGTERM) }

// Signal sends any signal.
func (r *Relay) Signal(sig os.Signal) { r.proc.Signal(sig) }

// Done is closed when the process has ended.
func (r *Relay) Done() <-chan struct{} { return r.proc.Done() }

// Running reports whether the process has not ended.
func (r *Relay) Running() bool {
	select {
	case <-r.proc.Done():
		return false
	default:
		return true
	}
}

// Wait returns the exit code, and fails the test if the process does not end in time. A process
// that a signal ended has the code -1.
func (r *Relay) Wait(t testing.TB, timeout time.Duration) int {
	t.Helper()
	if !wait.Closed(r.proc.Done(), timeout) {
		t.Fatalf("the process did not end within %s; the end of its log:\n%s", timeout, LastLines(r.Log(), 30))
	}
	return r.proc.State().ExitCode()
}

// Stop ends the relay with SIGTERM, which must be clean.
func (r *Relay) Stop(t testing.TB) {
	t.Helper()
	r.Term()
	if code := r.Wait(t, 40*time.Second); code != 0 {
		t.Fatalf("the relay ended with %d after SIGTERM:\n%s", code, LastLines(r.Log(), 30))
	}
}

// Log is what the process printed, at most the last 4 MiB.
func (r *Relay) Log() string { return r.log.String() }

// WaitLog returns when the log contains a text.
func (r *Relay) WaitLog(t testing.TB, timeout time.Duration, text string) {
	t.Helper()
	wait.For(t, timeout, fmt.Sprintf("%q in the log", text), func() bool { return strings.Contains(r.Log(), text) })
}

// Ready waits until /readyz says so. A relay that ends instead fails the test.
func (r *Relay) Ready(t testing.TB, timeout time.Duration) {
	t.Helper()
	wait.For(t, timeout, "the relay to be ready", func() bool {
		if !r.Running() {
			t.Fatalf("the relay ended with %d before it was ready:\n%s", r.proc.State().ExitCode(),
				LastLines(r.Log(), 30))
		}
		return r.IsReady()
	})
}

// IsReady asks /readyz once.
func (r *Relay) IsReady() bool {
	code, _ := r.Get("/readyz")
	return code == http.StatusOK
}

// IsLive asks /livez once.
func (r *Relay) IsLive() bool {
	code, _ := r.Get("/livez")
	return code == http.StatusOK
}

// Get asks for a page; the code is 0 if nobody answers.
func (r *Relay) Get(path string) (code int, body string) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+r.addr+path, http.NoBody)
	if err != nil {
		return 0, err.Error()
	}
	response, err := r.http.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(content)
}

// must gets a page of a relay that runs. Just after its start, or on a busy machine, the first
// answer may take its time.
func (r *Relay) must(t testing.TB, path string) string {
	t.Helper()
	for deadline := wait.In(answerLimit); ; time.Sleep(pollInterval) {
		code, body := r.Get(path)
		if code == http.StatusOK {
			return body
		}
		if deadline.Over() || code != 0 || !r.Running() {
			t.Fatalf("ask for %s: %d: %s", path, code, body)
		}
	}
}

// Status is the JSON of /status.
func (r *Relay) Status(t testing.TB) map[string]any {
	t.Helper()
	body := r.must(t, "/status")
	var status map[string]any
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatalf("read status: %v: %s", err, body)
	}
	return status
}

// Metrics are the values of /metrics by name and labels as they are printed there:
// `walpost_up{peer="kafka"}`.
func (r *Relay) Metrics(t testing.TB) map[string]float64 {
	t.Helper()
	metrics := map[string]float64{}
	for line := range strings.Lines(r.must(t, "/metrics")) {
		line = strings.TrimSpace(line)
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || line[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			t.Fatalf("read metric %q: %v", line, err)
		}
		metrics[line[:at]] = value
	}
	return metrics
}

// LastLines are the last so many lines of a text.
func LastLines(text string, count int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}
