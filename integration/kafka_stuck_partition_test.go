package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// TestPartitionThatFails has the brokers answer for one topic with an error that says nothing of
// the event, for ten seconds, while another topic can be written. Whether the client tries again
// itself or gives up, the relay does not exit, says which partition waits and why, and does not
// repeat the events of the other topic again and again.
func TestPartitionThatFails(t *testing.T) {
	t.Parallel()
	for _, answer := range []*kerr.Error{kerr.UnknownServerError, kerr.CorruptMessage, kerr.SaslAuthenticationFailed} {
		for _, delivery := range []string{"at-least-once", "exactly-once"} {
			t.Run(answer.Message+", "+delivery, func(t *testing.T) {
				if answer == kerr.SaslAuthenticationFailed { // as the one before it to the relay
					long(t)
				}
				t.Parallel()
				partitionFails(t, answer, delivery)
			})
		}
	}
}

func partitionFails(t *testing.T, answer *kerr.Error, delivery string) {
	env := Setup(t, Needs{Kafka: Faulty})
	env.Init(t)
	relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
	relay.Ready(t, 30*time.Second)
	for _, kind := range []string{"fails", "flows"} {
		insert(t, env, kind, "k", 1)
		awaitRecords(t, env, env.Prefix+kind, 1)
	}
	env.Fake.FailProduce(t, env.Prefix+"fails", answer.Code, -1)
	began := time.Now()
	// One transaction: ten events before the one that waits, and ten behind it.
	env.Exec(t, `INSERT INTO outbox (aggregatetype, aggregateid, payload)
		SELECT CASE n WHEN 11 THEN 'fails' ELSE 'flows' END, 'k', '{}' FROM generate_series(1, 21) n`)
	const rounds, each = 80, 25
	said := ""
	for range rounds {
		insert(t, env, "flows", "k", each)
		insert(t, env, "fails", "k", 1)
		time.Sleep(time.Until(began.Add(10*time.Second)) / rounds) // the rate of the events is part of the test
		if _, reasons := relay.Get("/readyz"); strings.Contains(reasons, answer.Message) {
			said = reasons
		}
	}
	if n := len(awaitRecords(t, env, env.Prefix+"flows", 11)); delivery == "exactly-once" && n != 11 {
		t.Errorf("%d events are committed, want the 11 before the one that waits", n)
	}
	Eventually(t, 30*time.Second, "the reason", func() bool {
		if _, reasons := relay.Get("/readyz"); strings.Contains(reasons, answer.Message) {
			said = reasons
		}
		return said != ""
	})
	if !strings.Contains(said, `topic "`+env.Prefix+`fails", partition `) {
		t.Errorf("/readyz does not name the partition: %s", said)
	}
	env.Fake.Heal(t)
	const flows, fails = 1 + 20 + rounds*each, 1 + 1 + rounds
	if n := len(awaitRecords(t, env, env.Prefix+"fails", fails)); n != fails {
		t.Errorf("%d records of %d events where it failed", n, fails)
	}
	repeats := len(awaitRecords(t, env, env.Prefix+"flows", flows)) - flows
	t.Logf("%d repeats of %d events; /readyz said %s", repeats, flows, strings.TrimSpace(said))
	switch {
	case (delivery == "exactly-once" || answer == kerr.UnknownServerError) && repeats > 0:
		t.Errorf("%d repeats", repeats)
	case repeats > flows: // each at most once
		t.Errorf("%d repeats of %d events: it repeats them again and again", repeats, flows)
	}
	relay.Ready(t, 10*time.Second)
	relay.Stop(t)
}
