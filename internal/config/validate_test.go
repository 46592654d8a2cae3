package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// valid gives settings without a fault, and clears the environment of the test.
func valid(t *testing.T) Config {
	t.Helper()
	setup(t, nil, "")
	c, _, err := parse(t, append([]string{"run"}, required...)...)
	if err != nil {
		t.Fatal(err)
	}
	return c.Run.Config
}

func TestValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Config)
		fault  string // A piece of the only fault; none means valid.
	}{
		{"valid", func(*Config) {}, ""},
		{"no url", func(c *Config) { c.PostgresURL = " " }, "--postgres-url (WALPOST_POSTGRES_URL, postgres_url): is required"},
		{"bad url", func(c *Config) { c.PostgresURL = "postgres://localhost:x/" }, "has a port that is not"},
		{"bad sslmode", func(c *Config) { c.PostgresURL = "postgres://localhost/?sslmode=maybe" }, "sslmode"},
		{"slot", func(c *Config) { c.Slot = "My-Slot" }, `--slot (WALPOST_SLOT, slot): "My-Slot" is not a slot name`},
		{"long slot", func(c *Config) { c.Slot = strings.Repeat("a", 64) }, "is not a slot name"},
		{"longest slot", func(c *Config) { c.Slot = strings.Repeat("a", 63) }, ""},
		{"no publication", func(c *Config) { c.Publication = "" }, "it is empty"},
		{"long publication", func(c *Config) { c.Publication = strings.Repeat("p", 64) }, "longer than 63"},
		{"odd publication", func(c *Config) { c.Publication = `My "pub"` }, ""},
		{"no table", func(c *Config) { c.Table = nil }, "at least one outbox table"},
		{"bad table", func(c *Config) { c.Table = []string{"a.b.c"} }, "has 3 parts"},
		{"table twice", func(c *Config) { c.Table = []string{"a.b", "x", `A."b"`} }, "a.b is given twice"},
		{"table twice, once without its schema", func(c *Config) { c.Table = []string{"x", "public.x"} }, "public.x is given twice"},
		{"two tables", func(c *Config) { c.Table = []string{"a.x", "b.x", `"X"`, "x"} }, ""},
		{"unknown column", func(c *Config) { c.Columns = map[string]string{"aggregate": "a"} }, `"aggregate" is not a column`},
		{"column without name", func(c *Config) { c.Columns = map[string]string{"id": ""} }, "does not name a column"},
		{"columns", func(c *Config) { c.Columns = map[string]string{"id": "ID", "created_at": "at"} }, ""},
		{"two for one column", func(c *Config) { c.Columns = map[string]string{"payload": "type"} }, `payload and type are both column "type"`},
		{"two mapped to one", func(c *Config) { c.Columns = map[string]string{"payload": "x", "headers": "x"} }, `payload and headers are both column "x"`},
		{"a time that is the id", func(c *Config) { c.Columns = map[string]string{"created_at": "id"} }, `created_at and id are both column "id"`},
		{"a shared column", func(c *Config) { c.Columns = map[string]string{"aggregateid": "id", "aggregatetype": "type"} }, ""},
		{"swapped columns", func(c *Config) { c.Columns = map[string]string{"type": "payload", "payload": "type"} }, ""},
		{"no brokers", func(c *Config) { c.KafkaBrokers = nil }, "--kafka-brokers (WALPOST_KAFKA_BROKERS, kafka_brokers): is required"},
		{"broker url", func(c *Config) { c.KafkaBrokers = []string{"kafka://a:1"} }, "is a URL"},
		{"broker port", func(c *Config) { c.KafkaBrokers = []string{"a:99999"} }, "has no port"},
		{"broker port zero", func(c *Config) { c.KafkaBrokers = []string{"a:0"} }, "has no port"},
		{"broker host", func(c *Config) { c.KafkaBrokers = []string{":9092"} }, "has no host"},
		{"broker colons", func(c *Config) { c.KafkaBrokers = []string{"a:b:c"} }, "is not host:port"},
		{"broker without port", func(c *Config) { c.KafkaBrokers = []string{"a", "::1", "[::2]:9092"} }, ""},
		{"broker twice", func(c *Config) { c.KafkaBrokers = []string{"a:1", "b:1", "A:1"} }, `"A:1" is given twice`},
		{"broker twice, once without a port", func(c *Config) { c.KafkaBrokers = []string{"a:9092", "a", "::1", "[::2]:9092"} }, `"a" is given twice`},
		{"constant topic", func(c *Config) { c.Topic = "events" }, ""},
		{"columns alone in topic", func(c *Config) { c.Topic = "{aggregatetype}.{type}" }, ""},
		{"empty topic", func(c *Config) { c.Topic = "" }, "is empty"},
		{"dots", func(c *Config) { c.Topic = ".." }, "is not a name that Kafka allows"},
		{"illegal topic", func(c *Config) { c.Topic = "a b" }, "characters that Kafka does not allow"},
		{"illegal literal", func(c *Config) { c.Topic = "a/{type}" }, "its fixed part"},
		{"long topic", func(c *Config) { c.Topic = strings.Repeat("t", 250) }, "250 bytes long"},
		{"open brace", func(c *Config) { c.Topic = "a.{type" }, "is not closed"},
		{"closing brace", func(c *Config) { c.Topic = "a.}{type}" }, "closing brace without"},
		{"no column", func(c *Config) { c.Topic = "a.{}" }, "without a column name"},
		{"brace in brace", func(c *Config) { c.Topic = "a.{{type}}" }, "inside another"},
		{"illegal state topic", func(c *Config) { c.StateTopic = "a{b}" }, "--state-topic"},
		{"same topics", func(c *Config) { c.Topic, c.StateTopic = "x", "x" }, "topic of its own"},
		{"exactly once", func(c *Config) { c.Delivery = "exactly-once" }, ""},
		{"delivery", func(c *Config) { c.Delivery = "maybe" }, "is neither at-least-once nor exactly-once"},
		{"space in brokers", func(c *Config) { c.KafkaBrokers = []string{"a:1", " b:2 "} }, ""},
		{"origin", func(c *Config) { c.Origin = "local" }, `"local" is neither any nor none`},
		{"interval", func(c *Config) { c.TransactionInterval = time.Minute }, "1m0s is not between 1ms and 10s"},
		{"batch", func(c *Config) { c.TransactionBytes = 1000 }, "1000B is less than 64KiB"},
		{"linger", func(c *Config) { c.KafkaLinger = 2 * time.Minute }, "is not between"},
		{"no linger", func(c *Config) { c.KafkaLinger = 0 }, ""},
		{"in flight", func(c *Config) { c.MaxInFlightBytes = 1000 }, "1000B is less than 1MiB"},
		{"drain", func(c *Config) { c.DrainTimeout = 0 }, "must be more than 0"},
		{"no http", func(c *Config) { c.HTTPAddr = "" }, ""},
		{"any port", func(c *Config) { c.HTTPAddr = ":0" }, ""},
		{"http without port", func(c *Config) { c.HTTPAddr = "localhost" }, "is not host:port"},
		{"log level", func(c *Config) { c.LogLevel = "fatal" }, "--log-level"},
		{"log level empty", func(c *Config) { c.LogLevel = "" }, "--log-level"},
		{"log format", func(c *Config) { c.LogFormat = "xml" }, "--log-format"},
		{"ca without tls", func(c *Config) { c.KafkaTLSServerName = "a" }, "has no effect without TLS"},
		{"ca missing", func(c *Config) { c.KafkaTLS, c.KafkaCAFile = true, "none.pem" }, "open none.pem"},
		{"ca empty", func(c *Config) { c.KafkaTLS, c.KafkaCAFile = true, "empty" }, "no certificate in PEM form"},
		{"cert alone", func(c *Config) { c.KafkaTLS, c.KafkaCertFile = true, "cert.pem" }, "--kafka-key-file (WALPOST_KAFKA_KEY_FILE"},
		{"key alone", func(c *Config) { c.KafkaTLS, c.KafkaKeyFile = true, "key.pem" }, "--kafka-cert-file (WALPOST_KAFKA_CERT_FILE"},
		{"pair", func(c *Config) {
			c.KafkaTLS, c.KafkaCAFile, c.KafkaCertFile, c.KafkaKeyFile = true, "cert.pem", "cert.pem", "key.pem"
		}, ""},
		{"bad pair", func(c *Config) { c.KafkaTLS, c.KafkaCertFile, c.KafkaKeyFile = true, "cert.pem", "empty" }, "load client certificate"},
		{"user without mechanism", func(c *Config) { c.KafkaSASLUser = "me" }, "--kafka-sasl-mechanism"},
		{"mechanism", func(c *Config) { login(c, "gssapi") }, `"gssapi" is not one of plain`},
		{"no user", func(c *Config) { login(c, "plain"); c.KafkaSASLUser = "" }, "--kafka-sasl-user"},
		{"no password", func(c *Config) { login(c, "plain"); c.KafkaSASLPassword = "" }, "or the password itself in WALPOST_KAFKA_SASL_PASSWORD"},
		{"two passwords", func(c *Config) { login(c, "plain"); c.KafkaSASLPasswordFile = "password" }, "give one"},
		{"password file", func(c *Config) { login(c, "plain"); c.KafkaSASLPassword, c.KafkaSASLPasswordFile = "", "password" }, ""},
		{"empty password file", func(c *Config) { login(c, "plain"); c.KafkaSASLPassword, c.KafkaSASLPasswordFile = "", "empty" }, "empty is empty"},
		{"sasl on loopback", func(c *Config) { login(c, "scram-sha-512"); c.KafkaBrokers = []string{"127.0.0.1:1", "[::1]:2"} }, ""},
		{"sasl elsewhere", func(c *Config) { login(c, "plain"); c.KafkaBrokers = []string{"localhost:1", "kafka:1"} }, "--kafka-tls"},
		{"sasl elsewhere with tls", func(c *Config) { login(c, "plain"); c.KafkaTLS, c.KafkaBrokers = true, []string{"kafka:1"} }, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := valid(t)
			writePair(t)
			write(t, "empty", "\n")
			write(t, "password", "secret\n")
			test.change(&c)
			got := c.Validate()
			if test.fault == "" {
				if len(got) > 0 {
					t.Errorf("unexpected: %q", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0], test.fault) {
				t.Errorf("got %q, want one that says %q", got, test.fault)
			}
		})
	}
}

func login(c *Config, mechanism string) {
	c.KafkaSASLMechanism, c.KafkaSASLUser, c.KafkaSASLPassword = mechanism, "me", "secret"
}

func writePair(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

func TestOptional(t *testing.T) {
	c := valid(t)
	c.PostgresURL, c.KafkaBrokers = "", nil
	if got := c.Validate(); len(got) != 2 {
		t.Errorf("want two faults, got %q", got)
	}
	if got := c.Validate("postgres-url", "kafka-brokers"); len(got) != 0 {
		t.Errorf("optional settings were missed: %q", got)
	}
}

func TestTables(t *testing.T) {
	good := map[string]Table{
		"outbox":              {"public", "outbox"},
		"App.Outbox":          {"app", "outbox"},
		`"App"."Out""box"`:    {"App", `Out"box`},
		`app."with.dot"`:      {"app", "with.dot"},
		" public.outbox ":     {"public", "outbox"},
		`"a,b".c`:             {"a,b", "c"},
		`public."Outbox box"`: {"public", "Outbox box"},
	}
	for given, want := range good {
		got, err := parseTable(given)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", given, got, err)
			continue
		}
		if again, err := parseTable(got.String()); err != nil || again != want {
			t.Errorf("%s written as %s reads as %v, %v", given, got, again, err)
		}
	}
	for _, given := range []string{"", ".", "a.", ".a", `"a`, `"a"b`, `a.b.c`, "a b", `a"b`, `""`, "a;b", strings.Repeat("x", 64)} {
		if got, err := parseTable(given); err == nil {
			t.Errorf("%q was read as %v", given, got)
		}
	}
	c := Config{Table: []string{`"public".OUTBOX`, "b"}}
	tables, err := c.Tables()
	if want := []Table{{"public", "outbox"}, {"public", "b"}}; err != nil || !slices.Equal(tables, want) {
		t.Errorf("got %v, %v", tables, err)
	}
}

func TestByteSize(t *testing.T) {
	good := map[string]ByteSize{"0": 0, "67108864": 64 << 20, "64MiB": 64 << 20, "1 GiB": 1 << 30, "3KiB": 3072, "7B": 7}
	for text, want := range good {
		var got ByteSize
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5MiB", "64MB", "9999999999GiB"} {
		var got ByteSize
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was read as %d", text, got)
		}
	}
	for size, want := range map[ByteSize]string{64 << 20: "64MiB", 1000: "1000B", 0: "0B"} {
		if got := size.String(); got != want {
			t.Errorf("%d is written %q", size, got)
		}
	}
}
