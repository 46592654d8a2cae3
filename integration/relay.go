package integration

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

	"github.com/walpost/walpost/internal/pgserver/child"
)

// relayLog bounds what is kept of the log of a relay.
const relayLog = 4 << 20

// Relay is a running, or ended, process of the built binary.
type Relay struct {
	addr string // of its HTTP server
	log  *child.Tail
	proc *child.Process
	http *http.Client
}

// Vars is the environment that points the binary at the servers and names of the test. Later entries win over earlier
// ones, so a test appends its own.
func (e *Env) Vars() []string {
	return []string{
		"WALPOST_POSTGRES_URL=" + e.URL(),
		"WALPOST_KAFKA_BROKERS=" + strings.Join(e.Brokers, ","),
		"WALPOST_TABLE=" + e.Table,
		"WALPOST_SLOT=" + e.Slot,
		"WALPOST_PUBLICATION=" + e.Publication,
		"WALPOST_TOPIC=" + e.Prefix + "{aggregatetype}",
		"WALPOST_STATE_TOPIC=" + e.StateTopic,
		"WALPOST_CREATE_TOPICS=true",
		"WALPOST_LOG_FORMAT=json",
	}
}

// Run starts "walpost run" with more variables ("WALPOST_DELIVERY=exactly-once") and returns at once; see Ready. The
// process is killed when the test ends.
func (e *Env) Run(t testing.TB, vars ...string) *Relay {
	t.Helper()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
	r := e.start(t, append([]string{"WALPOST_HTTP_ADDR=" + addr}, vars...), "run")
	r.addr = addr
	dumpOnFailure(t, fmt.Sprintf("relay %d", r.PID()), func() string { return lastLines(r.Log(), 60) })
	return r
}

// Walpost runs the binary with other arguments to its end, and returns its exit code and everything it printed.
func (e *Env) Walpost(t testing.TB, vars []string, args ...string) (code int, output string) {
	t.Helper()
	r := e.start(t, vars, args...)
	code = r.Wait(t, time.Minute)
	return code, r.Log()
}

// Init runs "walpost init", which must succeed.
func (e *Env) Init(t testing.TB, args ...string) string {
	t.Helper()
	code, output := e.Walpost(t, nil, append([]string{"init"}, args...)...)
	if code != 0 {
		t.Fatalf("walpost init ended with %d:\n%s", code, output)
	}
	return output
}

func (e *Env) start(t testing.TB, vars []string, args ...string) *Relay {
	t.Helper()
	binary := relayBinary
	if e.Clocks != nil {
		binary, vars = steppedBinary, append(vars, e.Clocks.Relay.vars...)
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	r := &Relay{
		log: child.NewTail(nil, relayLog),
		// Kept-alive connections would outlive the test.
		http: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}},
	}
	r.proc, err = child.Start(child.Spec{
		Path: path, Args: args, Dir: t.TempDir(), Env: append(append(foreignVars(), e.Vars()...), vars...), Output: r.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Kill)
	return r
}

// foreignVars is the environment without what would configure the relay behind the back of the test.
func foreignVars() []string {
	var vars []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "WALPOST_") && !strings.HasPrefix(entry, "PG") {
			vars = append(vars, entry)
		}
	}
	if raceBuilt() {
		vars = append(vars, "GOMAXPROCS=4")
	}
	return vars
}

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

// Wait returns the exit code, and fails the test if the process does not end in time. A process that a signal ended has
// the code -1.
func (r *Relay) Wait(t testing.TB, timeout time.Duration) int {
	t.Helper()
	select {
	case <-r.proc.Done():
		return r.proc.State().ExitCode()
	case <-time.After(timeout):
		t.Fatalf("the process did not end within %s; the end of its log:\n%s", timeout, lastLines(r.Log(), 30))
		return -1
	}
}

// Stop ends the relay with SIGTERM, which must be clean.
func (r *Relay) Stop(t testing.TB) {
	t.Helper()
	r.Term()
	if code := r.Wait(t, 40*time.Second); code != 0 {
		t.Fatalf("the relay ended with %d after SIGTERM:\n%s", code, lastLines(r.Log(), 30))
	}
}

// Log is what the process printed, at most the last 4 MiB.
func (r *Relay) Log() string { return r.log.String() }

// WaitLog returns when the log contains a text.
func (r *Relay) WaitLog(t testing.TB, timeout time.Duration, text string) {
	t.Helper()
	Eventually(t, timeout, fmt.Sprintf("%q in the log", text), func() bool { return strings.Contains(r.Log(), text) })
}

// Ready waits until /readyz says so. A relay that ends instead fails the test.
func (r *Relay) Ready(t testing.TB, timeout time.Duration) {
	t.Helper()
	Eventually(t, timeout, "the relay to be ready", func() bool {
		if !r.Running() {
			t.Fatalf("the relay ended with %d before it was ready:\n%s", r.proc.State().ExitCode(), lastLines(r.Log(), 30))
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

// Status is the JSON of /status.
func (r *Relay) Status(t testing.TB) map[string]any {
	t.Helper()
	code, body := r.Get("/status")
	var status map[string]any
	if err := json.Unmarshal([]byte(body), &status); code != http.StatusOK || err != nil {
		t.Fatalf("ask for status: %d, %v: %s", code, err, body)
	}
	return status
}

// Metrics are the values of /metrics by name and labels as they are printed there: `walpost_up{peer="kafka"}`.
func (r *Relay) Metrics(t testing.TB) map[string]float64 {
	t.Helper()
	code, body := r.Get("/metrics")
	if code != http.StatusOK {
		t.Fatalf("ask for metrics: %d: %s", code, body)
	}
	metrics := map[string]float64{}
	for line := range strings.Lines(body) {
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

func lastLines(text string, count int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}
