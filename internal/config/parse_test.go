package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// cli is a command line as the program declares it.
type cli struct {
	Run  runCommand  `cmd:"" help:"Run."`
	Init initCommand `cmd:"" help:"Init."`
	Ver  struct{}    `cmd:"" name:"version" help:"Version."`
}

type runCommand struct{ Config }

type initCommand struct {
	Config
	Print bool `help:"Print."`
	Count int  `help:"Count." default:"1"`
}

func (initCommand) OptionalSettings() []string { return []string{"kafka-brokers"} }

func (initCommand) UnusedSettings() []string { return []string{"drain-timeout", "kafka-linger"} }

// setup gives the test an empty working directory and an environment without settings.
func setup(t *testing.T, env map[string]string, file string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "WALPOST_") || strings.HasPrefix(name, "PG") {
			t.Setenv(name, "") // So that it is put back afterwards.
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	if file != "" {
		write(t, "walpost.yaml", file)
	}
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	full, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return full
}

func parse(t *testing.T, args ...string) (*cli, string, error) {
	t.Helper()
	var c cli
	var out bytes.Buffer
	_, err := Parse(&c, args, &out, &out)
	return &c, out.String(), err
}

// wantFaults checks that there are as many faults as wanted, and that each wanted piece is in one.
func wantFaults(t *testing.T, err error, pieces []string) {
	t.Helper()
	if len(pieces) == 0 {
		if err != nil {
			t.Fatalf("unexpected faults: %v", err)
		}
		return
	}
	var usage *UsageError
	if !errors.As(err, &usage) {
		t.Fatalf("want a usage error, got %v", err)
	}
	for _, piece := range pieces {
		if !strings.Contains(usage.Error(), piece) {
			t.Errorf("no fault says %q:\n%v", piece, usage)
		}
	}
	if len(usage.Faults) != len(pieces) {
		t.Errorf("%d faults where %d are wanted:\n%v", len(usage.Faults), len(pieces), usage)
	}
}

var required = []string{"--postgres-url=postgres://localhost/app", "--kafka-brokers=localhost:9092"}

func TestPrecedence(t *testing.T) {
	const file = "slot: from_file\ntable: [a.b, c]\ncolumns: {type: kind}\ncreate_topics: true\nkafka_linger: 7ms\nmax_in_flight_bytes: 2MiB\n"
	env := map[string]string{
		"WALPOST_SLOT": "from_env", "WALPOST_TABLE": "d,e.f", "WALPOST_COLUMNS": "id=event_id,type=event_type",
		"WALPOST_CREATE_TOPICS": "false", "WALPOST_KAFKA_LINGER": "8ms", "WALPOST_MAX_IN_FLIGHT_BYTES": "3145728",
	}
	flags := []string{
		"--slot=from_flag", "--table=g", "--table=h.i", "--columns=payload=body", "--create-topics",
		"--kafka-linger=9ms", "--max-in-flight-bytes=4MiB",
	}
	type want struct {
		slot, table, columns string
		create               bool
		linger               time.Duration
		size                 ByteSize
	}
	tests := []struct {
		name  string
		file  string
		env   map[string]string
		flags []string
		want  want
	}{
		{"default", "", nil, nil, want{"walpost", "public.outbox", "", false, time.Millisecond, 8 << 20}},
		{"file", file, nil, nil, want{"from_file", "a.b c", "type=kind", true, 7 * time.Millisecond, 2 << 20}},
		{"environment", file, env, nil, want{"from_env", "d e.f", "id=event_id type=event_type", false, 8 * time.Millisecond, 3 << 20}},
		{"flag", file, env, flags, want{"from_flag", "g h.i", "payload=body", true, 9 * time.Millisecond, 4 << 20}},
		{"flag over file", file, nil, flags, want{"from_flag", "g h.i", "payload=body", true, 9 * time.Millisecond, 4 << 20}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			setup(t, test.env, test.file)
			c, _, err := parse(t, slices.Concat([]string{"run"}, required, test.flags)...)
			if err != nil {
				t.Fatal(err)
			}
			var columns []string
			for name, column := range c.Run.Columns {
				columns = append(columns, name+"="+column)
			}
			slices.Sort(columns)
			got := want{
				c.Run.Slot, strings.Join(c.Run.Table, " "), strings.Join(columns, " "),
				c.Run.CreateTopics, c.Run.KafkaLinger, c.Run.MaxInFlightBytes,
			}
			if got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestDefaultsAreTheContract(t *testing.T) {
	setup(t, map[string]string{"WALPOST_POSTGRES_URL": "host=localhost", "WALPOST_KAFKA_BROKERS": "a:1,b:2"}, "")
	c, _, err := parse(t, "run")
	if err != nil {
		t.Fatal(err)
	}
	got := []string{
		strings.Join(c.Run.KafkaBrokers, "|"), c.Run.Publication, c.Run.Topic, c.Run.StateTopic, c.Run.Delivery, c.Run.HTTPAddr,
		c.Run.LogLevel, c.Run.LogFormat, c.Run.DrainTimeout.String(),
	}
	want := []string{
		"a:1|b:2", "walpost", "outbox.event.{aggregatetype}", "walpost.state", "at-least-once", "127.0.0.1:8085",
		"info", "auto", "30s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEveryFaultAtOnce(t *testing.T) {
	setup(t, map[string]string{"WALPOST_DRAIN_TIMEOUT": "long", "WALPOST_LOG_LEVEL": "loud"}, "slot: My-Slot\nslto: x\n")
	_, _, err := parse(t, "run", "--nonsense", "--topic", "--delivery=twice", "--kafka-linger=fast", "--other=1")
	wantFaults(t, err, []string{
		"unknown flag --nonsense", "unknown flag --other", `unknown key "slto"`,
		"--postgres-url (WALPOST_POSTGRES_URL, postgres_url): is required",
		"--kafka-brokers (WALPOST_KAFKA_BROKERS, kafka_brokers): is required",
		`--slot (WALPOST_SLOT, slot): "My-Slot" is not a slot name`,
		"--topic (WALPOST_TOPIC, topic): needs a value",
		`"twice" is neither at-least-once nor exactly-once`,
		"--kafka-linger (WALPOST_KAFKA_LINGER, kafka_linger):",
		"--drain-timeout (WALPOST_DRAIN_TIMEOUT, drain_timeout):",
		`"loud" is not one of trace`,
	})
}

func TestCommands(t *testing.T) {
	setup(t, nil, "")
	_, _, err := parse(t)
	wantFaults(t, err, []string{"expected one of"})
	_, _, err = parse(t, "fly")
	if err == nil || !strings.Contains(err.Error(), "unexpected argument fly") {
		t.Errorf("unknown command: %v", err)
	}
	_, _, err = parse(t, "init", required[0], "--count=many")
	wantFaults(t, err, []string{"--count: "})
	c, _, err := parse(t, "init", required[0], "--print")
	if err != nil || !c.Init.Print || c.Init.PostgresURL == "" {
		t.Errorf("command without Kafka: %+v, %v", c.Init, err)
	}
	write(t, "walpost.yaml", "broken: [")
	if _, _, err := parse(t, "version"); err != nil {
		t.Errorf("a command without settings read the file: %v", err)
	}
}

func TestWinningValueAloneIsJudged(t *testing.T) {
	setup(t, map[string]string{"WALPOST_KAFKA_LINGER": "soon"}, "drain_timeout: never\n")
	_, _, err := parse(t, append([]string{"run", "--kafka-linger=1ms", "--drain-timeout=1s"}, required...)...)
	wantFaults(t, err, nil)
}

func TestPasswordInFlag(t *testing.T) {
	for _, secret := range []string{
		"postgres://me:hunter2@localhost/app", "postgres://localhost/app?password=hunter2",
		"host=localhost password=hunter2", "host=localhost password = 'hunter2'",
	} {
		setup(t, nil, "")
		_, _, err := parse(t, "run", required[1], "--postgres-url="+secret)
		wantFaults(t, err, []string{"holds a password"})
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the fault repeats the secret: %v", err)
		}
		setup(t, map[string]string{"WALPOST_POSTGRES_URL": secret}, "")
		_, _, err = parse(t, "run", required[1])
		wantFaults(t, err, nil)
		setup(t, nil, "postgres_url: \""+secret+"\"\n")
		_, _, err = parse(t, "run", required[1])
		wantFaults(t, err, nil)
	}
}

func TestFaultsKeepSecrets(t *testing.T) {
	for broken, says := range map[string]string{
		"postgres://me:hunter2@local host:x/app": "a space in the host",
		"host=localhost password=hunter2 port=x": "a port that is not",
		"me:hunter2@localhost":                   "is not a Postgres URL",
		"postgres://me:hunter2@h:port/":          "a port that is not",
	} {
		setup(t, map[string]string{"WALPOST_POSTGRES_URL": broken}, "")
		_, _, err := parse(t, "run", required[1])
		wantFaults(t, err, []string{says})
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the fault repeats the secret: %v", err)
		}
	}
	setup(t, nil, "postgres_url: \"postgres://me:hunter2@h/\nslot: [\n")
	_, _, err := parse(t, "run", required[1])
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the fault repeats the secret: %v", err)
	}
}

func TestHelp(t *testing.T) {
	setup(t, nil, "")
	_, out, err := parse(t, "run", "--help")
	if !errors.Is(err, ErrHelp) {
		t.Fatalf("want ErrHelp, got %v", err)
	}
	text := strings.Join(strings.Fields(out), " ")
	for _, piece := range []string{
		`--slot="walpost"`, "($WALPOST_SLOT)", "($WALPOST_POSTGRES_URL)", "($WALPOST_KAFKA_BROKERS)", "Required.", "walpost.yaml",
		`--topic="outbox.event.{aggregatetype}"`, `--http-addr="127.0.0.1:8085"`, "WALPOST_KAFKA_SASL_PASSWORD", "--max-in-flight-bytes",
		"($WALPOST_CREATE_TOPICS)", "--kafka-tls", "exactly-once", "--transaction-interval=100ms",
	} {
		if !strings.Contains(text, piece) {
			t.Errorf("help lacks %q:\n%s", piece, out)
		}
	}
}

func TestHelpOfACommandThatNeedsLess(t *testing.T) {
	setup(t, map[string]string{"WALPOST_DRAIN_TIMEOUT": "3s"}, "kafka_linger: 4ms\n")
	_, out, err := parse(t, "init", "--help")
	if !errors.Is(err, ErrHelp) {
		t.Fatalf("want ErrHelp, got %v", err)
	}
	text := strings.Join(strings.Fields(out), " ")
	for piece, want := range map[string]bool{
		"--print": true, "--slot": true, "--drain-timeout": false, "--kafka-linger": false,
		"HOST:PORT,... Seed brokers": true, "Required. libpq URL": true,
	} {
		if strings.Contains(text, piece) != want {
			t.Errorf("help has %q: %t\n%s", piece, !want, out)
		}
	}
	// What it does not list it still takes.
	c, _, err := parse(t, "init", required[0], "--max-in-flight-bytes=2MiB")
	if err != nil || c.Init.DrainTimeout != 3*time.Second || c.Init.KafkaLinger != 4*time.Millisecond {
		t.Errorf("got %+v, %v", c.Init.Config, err)
	}
}
