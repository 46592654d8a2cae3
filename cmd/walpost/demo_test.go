package main

import (
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walpost/walpost/internal/demo"
)

const goodSummary = `^  missing       0\n  repeats       0\n  out of order  0\n  latency       p50 \d+\.\d ms, p99 \d+\.\d ms`

func TestDemo(t *testing.T) {
	t.Parallel()
	p := start(t, "demo", "--duration", "3s", "--rate", "20")
	output := p.end(exitOK)
	wantAll(t, output,
		`^  table walpost_demo\.outbox: created$`, `^  slot walpost_demo: created$`,
		`^time +topic +part +key +type +pos +ms$`,
		`^\d\d:\d\d:\d\d\.\d{3}  demo\.order     +[0-2]  order-\d+ +OrderPlaced +[0-9A-F]{8}-[0-9A-F]{16}-[0-9A-F]{8} +\d+\.\d$`,
		`rolled back: nothing will arrive \(`,
		`arrived without a commit: 0$`, goodSummary, `^Next steps$`)
	received := regexp.MustCompile(`committed +(\d+) events(?s:.*)received +(\d+) events`).FindStringSubmatch(output)
	if received == nil || received[1] != received[2] || received[1] == "0" {
		t.Errorf("committed and received: %v", received)
	}
	if rows := strings.Count(output, "  demo."); received != nil && fmt.Sprint(rows) != received[2] {
		t.Errorf("%d records were printed, and %s received", rows, received[2])
	}
	if strings.Contains(output, "\x1b") {
		t.Error("there are colours where no terminal is")
	}
	if p.stderr.Len() > 0 {
		t.Errorf("the relay warned: %s", p.stderr.String())
	}
	p.leavesNothing()
}

func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	for name, when := range map[string]string{
		"at once": "^walpost demo", "setting up": "Setting up", "while events flow": "OrderPlaced",
	} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
			p := start(t, "demo")
			p.until(when)
			if err := p.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			output := p.end(exitOK)
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("%s, %s: the end took %s", name, sig, took)
			}
			if when == "OrderPlaced" {
				wantAll(t, output, goodSummary)
			}
			p.leavesNothing()
		}
	}
}

func TestDemoWithoutReader(t *testing.T) {
	t.Parallel()
	p := start(t, "demo", "--rate", "50")
	p.until("OrderPlaced")
	if err := p.stdout.Close(); err != nil {
		t.Fatal(err)
	}
	p.end(exitFailed)
	if p.stderr.Len() > 0 {
		t.Errorf("got %s", p.stderr.String())
	}
	p.leavesNothing()
}

func TestDemoKilled(t *testing.T) {
	t.Parallel()
	p := start(t, "demo")
	p.until("OrderPlaced")
	if err := p.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.end(-1)
	for deadline := time.Now().Add(30 * time.Second); len(processesOf(p.tmp)) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("processes outlive the demo: %v", processesOf(p.tmp))
		}
	}
}

func TestDemoRefusesWrongSettings(t *testing.T) {
	t.Parallel()
	p := start(t, "demo", "--rate", "0", "--duration=-1s", "--partitions", "0", "--postgres-major", "9", "--kafka-brokers", "http://x", "--log-level", "loud")
	p.end(exitUsage)
	wantAll(t, p.stderr.String(), "--rate", "--duration", "--partitions", "--postgres-major", "--kafka-brokers", "--log-level")
	p.leavesNothing()
}

// objects lists everything in Postgres that has the demo's name.
const objects = `SELECT coalesce(string_agg(name, ' '), '') FROM (SELECT 'slot' AS name FROM pg_replication_slots WHERE slot_name = '` + demo.Name + `'
	UNION ALL SELECT 'publication' FROM pg_publication WHERE pubname = '` + demo.Name + `'
	UNION ALL SELECT 'schema' FROM pg_namespace WHERE nspname = '` + demo.Name + `') o`

func TestDemoOnOwnServers(t *testing.T) {
	t.Parallel()
	postgres, broker := ownServers(t)
	url := postgres.URL("postgres")
	run := func(more ...string) *process {
		return start(t, append([]string{"demo", "--postgres-url", url, "--kafka-brokers", strings.Join(broker.ListenAddrs(), ",")}, more...)...)
	}
	clean := func(when string) {
		t.Helper()
		if left, topics := query(t, url, objects), topicsOf(t, broker); left != "" || len(topics) > 0 {
			t.Errorf("%s, these stay behind: %s, topics %v", when, left, topics)
		}
	}

	p := run("--duration", "4s")
	p.until("OrderPlaced")
	if there := query(t, url, objects); there != "slot publication schema" {
		t.Errorf("while it runs there are: %s", there)
	}
	second := run()
	second.end(exitFailed)
	wantAll(t, second.stderr.String(), "another walpost demo is running")
	wantAll(t, p.end(exitOK), goodSummary)
	p.leavesNothing()
	clean("after a run")

	killed := run("--rate", "100")
	killed.until("OrderPaid")
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed.end(-1)
	if left := query(t, url, objects); left != "slot publication schema" {
		t.Errorf("after a kill there are: %s", left)
	}
	p = run("--duration", "1s", "--rate", "20")
	wantAll(t, p.end(exitOK), goodSummary, "arrived without a commit: 0")
	if left := query(t, url, objects); left != "" {
		t.Errorf("after a kill and a run there are: %s", left)
	}
}

func TestDemoLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	postgres, broker := ownServers(t)
	url := postgres.URL("postgres")
	for _, c := range []struct{ make, complaint, left, remove string }{
		{"CREATE SCHEMA walpost_demo", "that the demo did not create", "schema", "DROP SCHEMA walpost_demo"},
		{"CREATE PUBLICATION walpost_demo", "the demo did not create here", "publication", "DROP PUBLICATION walpost_demo"},
	} {
		query(t, url, c.make)
		p := start(t, "demo", "--postgres-url", url, "--kafka-brokers", strings.Join(broker.ListenAddrs(), ","))
		p.end(exitFailed)
		wantAll(t, p.stderr.String(), c.complaint)
		if left := query(t, url, objects); left != c.left {
			t.Errorf("after %s there is %q", c.make, left)
		}
		query(t, url, c.remove)
	}
}
