package integration

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/walpost/walpost/integration/servers"
	"github.com/walpost/walpost/integration/wait"
)

// causeLimit is how long the relay may take to say why it waits.
const causeLimit = 30 * time.Second

// saysWhy returns once /readyz, `walpost status` and the log say all of these things. The relay
// goes on trying.
func saysWhy(t testing.TB, env *Env, relay *Relay, deadline wait.Deadline, says ...string) {
	t.Helper()
	all := func(text string) bool {
		for _, part := range says {
			if !strings.Contains(strings.ReplaceAll(text, `\"`, `"`), part) {
				return false
			}
		}
		return true
	}
	var reasons string
	for {
		var code int
		if code, reasons = relay.Get("/readyz"); code == 503 && all(reasons) {
			break
		}
		if !relay.Running() || deadline.Over() {
			t.Fatalf("after %s the relay does not say %q:\n%s\n%s", deadline, says, reasons, lastLines(relay.Log(), 10))
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("after %s /readyz says %s", deadline, strings.TrimSpace(reasons))
	Eventually(t, 5*time.Second, "the log to say why", func() bool {
		for line := range strings.Lines(relay.Log()) {
			if strings.Contains(line, `"warn"`) && all(line) {
				return true
			}
		}
		return false
	})
	if _, output := env.Walpost(t, []string{"WALPOST_HTTP_ADDR=" + relay.Addr()}, "status"); !all(output) {
		t.Errorf("walpost status does not say %q:\n%s", says, output)
	}
	if !relay.IsLive() {
		t.Error("the relay is not live")
	}
}

// goesOn returns once the relay has published an event.
func goesOn(t testing.TB, env *Env, relay *Relay) {
	t.Helper()
	relay.Ready(t, time.Minute)
	insert(t, env, "order", "k", 1)
	awaitRecords(t, env, env.Prefix+"order", 1)
	relay.Stop(t)
}

// TestNoTransactionLog: exactly once on brokers that cannot make the topic of their transactions.
func TestNoTransactionLog(t *testing.T) {
	t.Parallel()
	env := Setup(t, Needs{Kafka: Own, KafkaConfig: map[string]string{"transaction.state.log.replication.factor": "3"}})
	env.Init(t)
	began := wait.In(causeLimit)
	relay := env.Run(t, "WALPOST_DELIVERY="+exactly)
	saysWhy(t, env, relay, began, "FindCoordinator is answered COORDINATOR_NOT_AVAILABLE", "__transaction_state",
		"By their transaction.state.log.replication.factor it needs 3 brokers (up: 1)")
	reconfigure(t, env, map[string]string{"transaction.state.log.replication.factor": "1"})
	goesOn(t, env, relay)
}

// TestTopicsBelowMinInSync: the state topic and the topic of transactions have too few replicas in
// sync: under the relay, and at its start.
func TestTopicsBelowMinInSync(t *testing.T) {
	long(t)
	t.Parallel()
	env := Setup(t, Needs{Kafka: OwnThree})
	env.Init(t)
	relay := env.Run(t, "WALPOST_DELIVERY="+exactly)
	relay.Ready(t, time.Minute)
	insert(t, env, "order", "k", 1)
	awaitRecords(t, env, env.Prefix+"order", 1)
	relay.Stop(t)
	for _, topic := range []string{env.StateTopic, "__transaction_state"} {
		env.SetTopicConfig(t, topic, "min.insync.replicas", "3")
	}
	for _, delivery := range deliveries {
		relay = env.Run(t, "WALPOST_DELIVERY="+delivery)
		relay.Ready(t, time.Minute)
		env.Kafka.Kill(2)
		began := wait.In(causeLimit)
		insert(t, env, "order", "k", 1)
		saysWhy(t, env, relay, began, fmt.Sprintf("topic %q cannot be written: min.insync.replicas is 3",
			env.StateTopic))
		relay.Kill()
		began = wait.In(causeLimit)
		relay = env.Run(t, "WALPOST_DELIVERY="+delivery)
		if delivery == exactly {
			saysWhy(t, env, relay, began, `topic "__transaction_state" cannot be written: min.insync.replicas is 3`)
		}
		startBroker(t, env, 2)
		goesOn(t, env, relay)
	}
}

// TestAdvertisedAddress: the brokers answer at the address that the relay was given, and advertise
// another, which is closed or silent.
func TestAdvertisedAddress(t *testing.T) {
	t.Parallel()
	for _, delivery := range deliveries {
		for _, silent := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, silent %t", delivery, silent), func(t *testing.T) {
				t.Parallel()
				if silent || delivery == exactly {
					long(t)
				}
				ports, err := servers.FreePorts(1)
				if err != nil {
					t.Fatal(err)
				}
				advertised := fmt.Sprintf("127.0.0.1:%d", ports[0])
				if silent {
					listener, err := net.Listen("tcp", advertised)
					if err != nil {
						t.Fatal(err)
					}
					closeAtEnd(t, listener)
				}
				env := Setup(t, Needs{Kafka: Own, KafkaConfig: map[string]string{"advertised.listeners": "CLIENT://" + advertised}})
				env.Init(t)
				began := wait.In(causeLimit)
				relay := env.Run(t, "WALPOST_DELIVERY="+delivery)
				saysWhy(t, env, relay, began, "broker 1 does not answer at "+advertised, "advertised.listeners")
				reconfigure(t, env, map[string]string{"advertised.listeners": "CLIENT://" + env.Brokers[0]})
				goesOn(t, env, relay)
			})
		}
	}
}
