package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration/checker"
)

// failover is what happens before the primary is killed and its standby promoted.
type failover struct {
	behind       bool // the standby gets nothing of the primary for a while, and events go on
	synchronized bool // synchronized_standby_slots names the standby
	killed       bool // the relay is killed with the primary, and another one starts after the promotion
}

// TestFailover kills the primary under load while its standby is behind. Without
// synchronized_standby_slots, events were published that the new primary does not know, and the
// relay says so; with it there are none.
func TestFailover(t *testing.T) {
	for _, delivery := range deliveries {
		for name, how := range map[string]failover{
			"standby behind":               {behind: true},
			"standby behind, synchronized": {behind: true, synchronized: true},
		} {
			t.Run(fmt.Sprintf("%s, %s", name, delivery), func(t *testing.T) {
				t.Parallel()
				how.play(t, 18, delivery)
			})
		}
	}
}

// TestFailoverOtherwise is the same with Postgres 17, with a standby that keeps up, and with a
// relay that is killed as well.
func TestFailoverOtherwise(t *testing.T) {
	long(t)
	for _, major := range []int{17, 18} {
		for _, delivery := range deliveries {
			for name, how := range map[string]failover{
				"keeps up":                             {},
				"keeps up, synchronized":               {synchronized: true},
				"behind":                               {behind: true},
				"behind, synchronized":                 {behind: true, synchronized: true},
				"behind, the relay dies":               {behind: true, killed: true},
				"behind, synchronized, the relay dies": {behind: true, synchronized: true, killed: true},
			} {
				t.Run(fmt.Sprintf("postgres %d, %s, %s", major, name, delivery), func(t *testing.T) {
					t.Parallel()
					how.play(t, major, delivery)
				})
			}
		}
	}
}

func (how failover) play(t *testing.T, major int, delivery string) {
	env := Setup(t, Needs{Postgres: major, OwnPostgres: true, Settings: map[string]string{"fsync": "off"}})
	standby := env.Standby(t)
	if how.synchronized {
		env.Exec(t, "ALTER SYSTEM SET synchronized_standby_slots = '"+physicalSlot+"'")
		env.Exec(t, "SELECT pg_reload_conf()")
	}
	env.Init(t, "--failover")
	relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
	relay.Ready(t, time.Minute)
	work := env.Workload(t, WorkloadOptions{Rate: 500, Failover: true})
	standby.AwaitSlot(t, env)
	work.WaitCommitted(t, work.Committed()+500)
	if how.behind {
		how.fallBehind(t, env, standby, relay, work)
	}
	env.Server.Kill()
	if how.killed {
		relay.Kill()
	}
	standby.Line.Break()
	ended := standby.Promote(t, env)
	if how.killed {
		relay = env.Run(t, "WALPOST_DELIVERY="+delivery)
	}
	relay.Ready(t, time.Minute)
	work.WaitCommitted(t, work.Committed()+1000)
	work.Stop(t)
	lost := checkFailover(t, env, work, ended, how.killed && delivery != exactly)
	how.checkLog(t, relay, ended, lost)
	relay.Stop(t)
	if again := checkFailover(t, env, work, ended, how.killed && delivery != exactly); len(again) != len(lost) {
		t.Errorf("%d lost events after the stop, %d before", len(again), len(lost))
	}
}

// fallBehind keeps from the standby what is committed from now on.
func (how failover) fallBehind(t *testing.T, env *Env, standby *Standby, relay *Relay, work *Workload) {
	if standby.Line.Silence() == 0 {
		t.Fatal("the standby has no connection to its primary")
	}
	before := publishedEvents(t, relay)
	work.WaitCommitted(t, work.Committed()+1000)
	if !how.synchronized {
		Eventually(t, time.Minute, "events that the standby lacks to be published",
			func() bool { return publishedEvents(t, relay) > before+500 })
		return
	}
	time.Sleep(2 * time.Second) // time to publish what the standby lacks
	work.WaitCommitted(t, work.Committed()+500)
	nothingPast(t, env)
	if !relay.IsLive() || walsender(t, env) == "" {
		t.Error("the relay has no stream while the server waits for the standby")
	}
}

// nothingPast checks that nothing was published that the standby has not confirmed. It is away, so
// it confirms nothing more.
func nothingPast(t *testing.T, env *Env) {
	t.Helper()
	var last *kgo.Record
	env.consume(t, func(r *kgo.Record, _ int32) {
		if last == nil || headerValue(r, "pos") > headerValue(last, "pos") {
			last = r
		}
	}, func() bool { return true })
	if last == nil {
		t.Fatal("nothing was published")
	}
	confirmed := parseLSN(t, env.Value(t, "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = $1",
		physicalSlot))
	if commit := commitOf(t, last); commit >= confirmed {
		t.Errorf("an event was published that commits at %s, and the standby has confirmed %s alone", commit, confirmed)
	}
}

func publishedEvents(t testing.TB, relay *Relay) float64 {
	sum := 0.0
	for name, value := range relay.Metrics(t) {
		if strings.HasPrefix(name, "walpost_events_published_total") {
			sum += value
		}
	}
	return sum
}

// checkFailover compares the topics with the outbox table of the new primary, and returns the pos
// of each event that was published and is not part of the new primary's history.
func checkFailover(t *testing.T, env *Env, work *Workload, ended string, repeats bool) (lost []string) {
	t.Helper()
	truth := work.Truth(t)
	check := checker.New(truth)
	lostIDs := map[string]bool{}
	type place struct {
		topic     string
		partition int32
		source    string
	}
	lastPos := map[place]string{} // of all, the lost ones too
	seen := map[string]bool{}
	env.consume(t, func(r *kgo.Record, partitions int32) {
		id, pos := headerValue(r, "id"), headerValue(r, "pos")
		at := place{r.Topic, r.Partition, headerValue(r, "source")}
		if !seen[id] {
			if pos <= lastPos[at] {
				t.Errorf("%s/%d@%d: pos %s does not grow, the one before is %s", r.Topic, r.Partition, r.Offset,
					pos, lastPos[at])
			}
			seen[id], lastPos[at] = true, pos
		}
		if pos[:8] != ended[:8] || pos < ended {
			check.Add(r, partitions)
			return
		}
		if lostIDs[id] {
			t.Errorf("event %s, which the failover lost, was published twice", id)
		}
		if truth.Events[id] != nil {
			t.Errorf("event %s with pos %s is behind the end of its timeline, %s, and survived", id, pos, ended)
		}
		lostIDs[id] = true
		lost = append(lost, pos)
	}, func() bool { return check.Missing() == 0 })
	report := check.Report()
	allowed := 0
	if repeats {
		allowed = 2000 // some seconds: what is younger than the position that was stored last
	}
	report.Assert(t, allowed)
	t.Logf("%d published events were lost with the primary", len(lost))
	return lost
}

// checkLog wants the lost events named, with the LSNs between which they lie.
func (how failover) checkLog(t *testing.T, relay *Relay, ended string, lost []string) {
	t.Helper()
	var said struct {
		LSN      string `json:"lsn"`
		Until    string `json:"published_until"`
		Timeline uint32 `json:"timeline"`
	}
	named := false
	for line := range strings.Lines(relay.Log()) {
		if strings.Contains(line, "failover: events between these LSNs were published") {
			named = true
			if err := json.Unmarshal([]byte(line), &said); err != nil {
				t.Fatal(err)
			}
		}
	}
	if how.behind && !how.synchronized && len(lost) == 0 {
		t.Error("nothing published was lost: the standby was not behind")
	}
	if how.synchronized && (len(lost) > 0 || named) {
		t.Errorf("with synchronized_standby_slots %d published events were lost, and the log says so: %t",
			len(lost), named)
	}
	if len(lost) > 0 && !named { // the other way round may be: a position without events was lost
		t.Errorf("%d published events were lost, and the log does not say so", len(lost))
	}
	if !named {
		return
	}
	at := func(lsn string) string {
		var high, low uint32
		if _, err := fmt.Sscanf(lsn, "%X/%X", &high, &low); err != nil {
			t.Fatalf("read LSN %q: %v", lsn, err)
		}
		return fmt.Sprintf("00000001-%08X%08X", high, low)
	}
	if at(said.LSN) != ended || said.Timeline != 2 {
		t.Errorf("the log says %+v; timeline 1 ended at %s", said, ended)
	}
	for _, pos := range lost {
		if pos >= at(said.Until) {
			t.Errorf("the log says that events were published until %s; %s is not before it", said.Until, pos)
		}
	}
	t.Logf("the log says %+v", said)
}

// TestSynchronizedStandbyAway takes away the standby that synchronized_standby_slots names, and
// even its slot. The server warns on the stream that it waits; that is no reason to stop, and
// events go on when the standby is back.
func TestSynchronizedStandbyAway(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Postgres: 18, OwnPostgres: true, Settings: map[string]string{"fsync": "off"}})
	standby := env.Standby(t)
	env.Exec(t, "ALTER SYSTEM SET synchronized_standby_slots = '"+physicalSlot+"'")
	env.Exec(t, "SELECT pg_reload_conf()")
	env.Init(t, "--failover")
	relay := env.Run(t)
	relay.Ready(t, time.Minute)
	work := env.Workload(t, WorkloadOptions{Rate: 200})
	work.WaitCommitted(t, 200)
	standby.Server.Kill()
	work.WaitCommitted(t, work.Committed()+600)
	nothingPast(t, env)
	if err := standby.Server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole(t, env, work, relay)
}
