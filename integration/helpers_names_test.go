package integration

import (
	"testing"

	"github.com/walpost/walpost/integration/checker"
	"github.com/walpost/walpost/integration/faults"
	"github.com/walpost/walpost/integration/process"
	"github.com/walpost/walpost/integration/servers"
	"github.com/walpost/walpost/integration/wait"
	"github.com/walpost/walpost/integration/workload"
)

// Short names of what many tests take from the packages of the harness.
type (
	Clock           = faults.Clock
	Expected        = checker.Expected
	Fake            = servers.Fake
	Proxy           = faults.Proxy
	Relay           = process.Relay
	Report          = checker.Report
	Truth           = checker.Truth
	Workload        = workload.Workload
	WorkloadOptions = workload.Options
)

const eventPartitions = servers.EventPartitions

var (
	Eventually  = wait.For
	headerValue = checker.Header
	lastLines   = process.LastLines
)

// execute runs one statement in the database of that address.
func execute(t testing.TB, address, sql string, args ...any) {
	t.Helper()
	(&servers.DB{Address: address}).Exec(t, sql, args...)
}
