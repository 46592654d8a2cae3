package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
)

// guarded are settings of a broker that asks everybody for a login, and has clients log in again
// every two seconds.
var guarded = map[string]string{
	"listener.security.protocol.map":                      "CLIENT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
	"sasl.enabled.mechanisms":                             "PLAIN,SCRAM-SHA-256",
	"sasl.mechanism.inter.broker.protocol":                "PLAIN",
	"listener.name.client.plain.sasl.jaas.config":         `org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" password="secret" user_admin="secret";`,
	"listener.name.client.scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
	"authorizer.class.name":                               "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
	// The controller's listener asks for no login.
	"super.users":               "User:admin;User:ANONYMOUS",
	"connections.max.reauth.ms": "2000",
}

// guardedKafka has brokers with access control, a user walpost that has exactly the rights that the
// README names, and a relay that logs in as this user. The file holds its password.
func guardedKafka(t *testing.T, delivery string) (env *Env, vars []string, passwordFile string) {
	t.Helper()
	env = Setup(t, Needs{Kafka: Own, KafkaConfig: guarded})
	env.Login = []kgo.Opt{kgo.SASL(plain.Auth{User: "admin", Pass: "secret"}.AsMechanism())}
	env.Init(t)
	setPassword(t, env, "first")
	grant(t, env, kadm.ACLPatternLiteral,
		kadm.NewACLs().Topics(env.StateTopic).Operations(kadm.OpRead, kadm.OpWrite, kadm.OpDescribe, kadm.OpCreate))
	grant(t, env, kadm.ACLPatternPrefixed,
		kadm.NewACLs().Topics(env.Prefix).Operations(kadm.OpDescribe, kadm.OpDescribeConfigs, kadm.OpCreate))
	grant(t, env, kadm.ACLPatternPrefixed, writeEvents(env))
	if delivery == exactly {
		id := "walpost/" + env.Value(t, "SELECT system_identifier FROM pg_control_system()") + "/" + env.Slot
		grant(t, env, kadm.ACLPatternLiteral,
			kadm.NewACLs().TransactionalIDs(id).Operations(kadm.OpWrite, kadm.OpDescribe))
	}
	passwordFile = filepath.Join(t.TempDir(), "password")
	writePassword(t, passwordFile, "first")
	return env, []string{
		"WALPOST_DELIVERY=" + delivery, "WALPOST_MAX_IN_FLIGHT_BYTES=1MiB", "WALPOST_KAFKA_SASL_MECHANISM=scram-sha-256", "WALPOST_KAFKA_SASL_USER=walpost",
		"WALPOST_KAFKA_SASL_PASSWORD_FILE=" + passwordFile,
	}, passwordFile
}

func writeEvents(env *Env) *kadm.ACLBuilder {
	return kadm.NewACLs().Topics(env.Prefix).Operations(kadm.OpWrite)
}

func grant(t testing.TB, env *Env, pattern kadm.ACLPattern, rights *kadm.ACLBuilder) {
	t.Helper()
	rights = rights.ResourcePatternType(pattern).Allow("User:walpost").AllowHosts("*")
	results, err := kadm.NewClient(env.Client(t)).CreateACLs(t.Context(), rights)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

func revoke(t testing.TB, env *Env, pattern kadm.ACLPattern, rights *kadm.ACLBuilder) {
	t.Helper()
	rights = rights.ResourcePatternType(pattern).Allow("User:walpost").AllowHosts("*")
	results, err := kadm.NewClient(env.Client(t)).DeleteACLs(t.Context(), rights)
	if err != nil {
		t.Fatal(err)
	}
	deleted := 0
	for _, r := range results {
		deleted += len(r.Deleted)
	}
	if deleted != 1 {
		t.Fatalf("%d rights were revoked, want one", deleted)
	}
}

func setPassword(t testing.TB, env *Env, password string) {
	t.Helper()
	altered, err := kadm.NewClient(env.Client(t)).AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{
		{User: "walpost", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: password},
	})
	if err == nil {
		err = altered.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func writePassword(t testing.TB, file, password string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func removeFile(t testing.TB, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// TestRightRevoked takes the right to write events from a relay that has exactly the rights it
// needs. It stops, and says which right is missing; with the right given back, a start goes on.
func TestRightRevoked(t *testing.T) {
	t.Parallel()
	for _, delivery := range deliveries {
		t.Run(delivery, func(t *testing.T) {
			env, vars, _ := guardedKafka(t, delivery)
			relay := env.Run(t, vars...)
			relay.Ready(t, 30*time.Second)
			work := env.Workload(t, WorkloadOptions{Rate: 1000, Writers: 3})
			work.WaitCommitted(t, 2000)
			revoke(t, env, kadm.ACLPatternPrefixed, writeEvents(env))
			var starts starts
			halts(t, relay, "TOPIC_AUTHORIZATION_FAILED", "grant WRITE and DESCRIBE on topic")
			starts.add(t, env)
			halts(t, env.Run(t, vars...), "TOPIC_AUTHORIZATION_FAILED") // and again, until somebody acts
			starts.add(t, env)
			grant(t, env, kadm.ACLPatternPrefixed, writeEvents(env))
			relay = env.Run(t, vars...)
			relay.Ready(t, 30*time.Second)
			work.WaitCommitted(t, work.Committed()+1000)
			work.Stop(t)
			report := env.Check(t, work)
			if delivery == exactly {
				report.Assert(t, 0)
			} else {
				report.Assert(t, inAMiB) // what was published behind the refused event
			}
			starts.check(t, report)
			relay.Stop(t)
		})
	}
}

// TestPasswordChanged changes the relay's password at the brokers and back, and then for good; and
// the file is half written, empty, or missing for a moment. These are outages, which say who is
// refused, and the password file is read at each login.
func TestPasswordChanged(t *testing.T) {
	t.Parallel()
	for _, delivery := range deliveries {
		t.Run(delivery, func(t *testing.T) {
			if delivery == exactly {
				long(t)
			}
			env, vars, file := guardedKafka(t, delivery)
			relay := env.Run(t, vars...)
			relay.Ready(t, 30*time.Second)
			work := env.Workload(t, WorkloadOptions{Rate: 1000, Writers: 3})
			work.WaitCommitted(t, 1000)
			refused := `the login of user "walpost" with the password in WALPOST_KAFKA_SASL_PASSWORD_FILE ` + file + " is refused"
			change := func() { setPassword(t, env, "second") }
			for _, c := range []struct {
				spoil func()
				says  string
				mend  func()
			}{
				{change, refused, func() { setPassword(t, env, "first") }},
				{change, refused, func() { writePassword(t, file, "second") }},
				// Half written.
				{func() { writePassword(t, file, "sec") }, refused, func() { writePassword(t, file, "second") }},
				{
					func() { writePassword(t, file, "") }, file + " is empty",
					func() { writePassword(t, file, "second") },
				},
				{func() { removeFile(t, file) }, "no such file", func() { writePassword(t, file, "second") }},
			} {
				c.spoil()
				var reasons string
				Eventually(t, time.Minute, fmt.Sprintf("/readyz to say %q", c.says), func() bool {
					var code int
					code, reasons = relay.Get("/readyz")
					return code == 503 && strings.Contains(reasons, c.says)
				})
				t.Logf("/readyz says %s", strings.TrimSpace(reasons))
				work.WaitCommitted(t, work.Committed()+1000)
				if !relay.IsLive() {
					t.Fatal("the relay is gone")
				}
				c.mend()
				relay.Ready(t, time.Minute)
				work.WaitCommitted(t, work.Committed()+1000)
			}
			work.Stop(t)
			report := env.Check(t, work)
			if delivery == exactly {
				report.Assert(t, 0)
			} else {
				// An error that ends the client repeats what was published behind the oldest event.
				report.Assert(t, 2*inAMiB)
			}
			if peak := residentPeakMiB(t, relay.PID()); peak > 150 {
				t.Errorf("the relay took %d MiB", peak)
			}
			relay.Stop(t)
		})
	}
}
