package integration

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/walpost/walpost/integration/faults"
	"github.com/walpost/walpost/integration/process"
	"github.com/walpost/walpost/integration/servers"
	"github.com/walpost/walpost/integration/workload"
)

// Vars is the environment that points the binary at the servers and names of the test. Later
// entries win over earlier ones, so a test appends its own.
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

// Run starts "walpost run" with more variables ("WALPOST_DELIVERY=exactly-once") and returns at
// once; see Ready. The process is killed when the test ends.
func (e *Env) Run(t testing.TB, vars ...string) *process.Relay {
	t.Helper()
	ports, err := servers.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
	r := e.startAt(t, addr, append([]string{"WALPOST_HTTP_ADDR=" + addr}, vars...), "run")
	dumpOnFailure(t, fmt.Sprintf("relay %d", r.PID()), func() string { return process.LastLines(r.Log(), 60) })
	return r
}

// Walpost runs the binary with other arguments to its end, and returns its exit code and everything
// it printed.
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

// start runs the binary and returns at once.
func (e *Env) start(t testing.TB, vars []string, args ...string) *process.Relay {
	t.Helper()
	return e.startAt(t, "", vars, args...)
}

func (e *Env) startAt(t testing.TB, addr string, vars []string, args ...string) *process.Relay {
	t.Helper()
	binary := process.Binary
	if e.Clocks != nil {
		binary, vars = faults.SteppedBinary, append(vars, e.Clocks.Relay.Vars...)
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return process.Start(t, path, addr, append(e.Vars(), vars...), args...)
}

// PostgresProxy opens a line to the Postgres of the test. The variable makes a relay use it.
func (e *Env) PostgresProxy(t testing.TB) (p *faults.Proxy, variable string) {
	t.Helper()
	address, err := url.Parse(e.URL())
	if err != nil {
		t.Fatal(err)
	}
	p = faults.StartProxy(t, address.Host)
	return p, "WALPOST_POSTGRES_URL=" + strings.Replace(e.URL(), address.Host, p.Addr(), 1)
}

// Workload starts to write into the outbox until Wait, Stop or the end of the test. The table must
// be there.
func (e *Env) Workload(t testing.TB, opts workload.Options) *workload.Workload {
	t.Helper()
	return workload.Start(t, workload.Outbox{DB: e.DB, Table: e.Table, Prefix: e.Prefix}, opts)
}
