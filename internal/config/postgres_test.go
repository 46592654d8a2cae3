package config

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kgo"
)

// mode tells how a connection is protected.
func mode(c *pgconn.Config) string {
	switch {
	case c.TLSConfig == nil && len(c.Fallbacks) == 0:
		return "plain"
	case c.TLSConfig == nil:
		return "plain, then TLS"
	case !c.TLSConfig.InsecureSkipVerify && c.TLSConfig.ServerName != "":
		for _, fallback := range c.Fallbacks {
			if fallback.TLSConfig == nil {
				return "verify-full, then plain"
			}
		}
		return "verify-full"
	case len(c.Fallbacks) > 0:
		return "prefer"
	default:
		return "unverified"
	}
}

func TestSSLMode(t *testing.T) {
	tests := []struct {
		name, url string
		env       map[string]string
		want      string
	}{
		{"elsewhere", "postgres://db.example.com/app", nil, "verify-full"},
		{"elsewhere, with other parameters", "postgres://db.example.com/app?connect_timeout=3", nil, "verify-full"},
		{"elsewhere, empty query", "postgres://db.example.com/app?", nil, "verify-full"},
		{"elsewhere by keywords", "host=db.example.com dbname=app", nil, "verify-full"},
		{"elsewhere by PGHOST", "postgres://", map[string]string{"PGHOST": "db.example.com"}, "verify-full"},
		{"one of several elsewhere", "postgres://localhost,db.example.com/app", nil, "verify-full"},
		{"disabled by the URL", "postgres://db.example.com/app?sslmode=disable", nil, "plain"},
		{"required by keywords", "host=db.example.com sslmode=require", nil, "unverified"},
		{"disabled by PGSSLMODE", "host=db.example.com", map[string]string{"PGSSLMODE": "disable"}, "plain"},
		{"localhost", "postgres://localhost/app", nil, "prefer"},
		{"loopback", "postgres://127.0.0.2/app", nil, "prefer"},
		{"loopback by IPv6", "postgres://[::1]/app", nil, "prefer"},
		{"socket", "host=/run/postgresql", nil, "plain"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			setup(t, test.env, "")
			c := Config{PostgresURL: test.url}
			got, err := c.PostgresConfig()
			if err != nil {
				t.Fatal(err)
			}
			if mode(got) != test.want {
				t.Errorf("got %s, want %s", mode(got), test.want)
			}
		})
	}
}

func TestPostgresEnvironment(t *testing.T) {
	setup(t, map[string]string{"PGHOST": "localhost", "PGUSER": "me", "PGDATABASE": "app", "PGAPPNAME": ""}, "")
	t.Setenv("PGPASSFILE", write(t, "pass", "localhost:5433:app:me:from-file\n"))
	c := Config{PostgresURL: "postgres://:5433"}
	got, err := c.PostgresConnConfig()
	if err != nil {
		t.Fatal(err)
	}
	if got.Host != "localhost" || got.Port != 5433 || got.User != "me" || got.Database != "app" || got.Password != "from-file" {
		t.Errorf("got host %s, port %d, user %s, database %s", got.Host, got.Port, got.User, got.Database)
	}
	if name := got.RuntimeParams["application_name"]; name != "walpost" {
		t.Errorf("application_name is %q", name)
	}
	c.PostgresURL = "host=localhost application_name=mine"
	if got, err = c.PostgresConnConfig(); err != nil || got.RuntimeParams["application_name"] != "mine" {
		t.Errorf("the given application_name is lost: %v, %v", got.RuntimeParams, err)
	}
}

func TestKafkaOptions(t *testing.T) {
	c := valid(t)
	write(t, "password", "secret\n")
	for _, mechanism := range []string{"", "plain", "scram-sha-256", "scram-sha-512"} {
		c.KafkaTLS = mechanism != ""
		c.KafkaSASLMechanism, c.KafkaSASLUser, c.KafkaSASLPasswordFile = mechanism, "me", "password"
		options, err := c.KafkaOptions()
		if err != nil {
			t.Fatal(err)
		}
		client, err := kgo.NewClient(options...)
		if err != nil {
			t.Fatalf("%q: %v", mechanism, err)
		}
		if id, _ := client.OptValue(kgo.ClientID).(string); id != "walpost" {
			t.Errorf("%q: client id %v", mechanism, client.OptValue(kgo.ClientID))
		}
		if seeds, _ := client.OptValue(kgo.SeedBrokers).([]string); len(seeds) != 1 || seeds[0] != "localhost:9092" {
			t.Errorf("%q: seeds %v", mechanism, seeds)
		}
		client.Close()
	}
	c.KafkaSASLMechanism = "other"
	if _, err := c.KafkaOptions(); err == nil {
		t.Error("an unknown mechanism gave no error")
	}
}

func TestPasswordFileIsReadAgain(t *testing.T) {
	setup(t, nil, "")
	c := Config{KafkaSASLPasswordFile: write(t, "password", "one\r\n")}
	if got, err := c.kafkaPassword(); err != nil || got != "one" {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	write(t, "password", "two")
	if got, err := c.kafkaPassword(); err != nil || got != "two" {
		t.Errorf("the new password was not read: %d bytes, %v", len(got), err)
	}
}

func TestPasswordOnlyFromEnvironment(t *testing.T) {
	setup(t, map[string]string{"WALPOST_KAFKA_SASL_PASSWORD": "secret"}, "")
	c, _, err := parse(t, append([]string{"run", "--kafka-sasl-mechanism=plain", "--kafka-sasl-user=me"}, required...)...)
	if err != nil || c.Run.KafkaSASLPassword != "secret" {
		t.Errorf("the variable was not read: %v", err)
	}
	_, _, err = parse(t, append([]string{"run", "--kafka-sasl-password=x"}, required...)...)
	if err == nil {
		t.Error("a flag for the password was accepted")
	}
}

// TestMisspelledParameter: the server would refuse it at every start; here it is a fault of the
// settings. Settings of the server pass.
func TestMisspelledParameter(t *testing.T) {
	for url, want := range map[string]string{
		"postgres://localhost/app?sslmod=disable":                                  `"sslmod", which is unknown (did you mean sslmode?)`,
		"host=localhost passwrd=secret":                                            `"passwrd", which is unknown (did you mean password?)`,
		"postgres://localhost/app?work_mem=4MB&search_path=events&lock_timeout=5s": "",
		"postgres://localhost/app?options=-c%20work_mem%3D4MB":                     "",
		"host=localhost application_name=mine client_encoding=UTF8":                "",
		"postgres://localhost/app?target_session_attrs=primary&sslmode=disable":    "",
	} {
		setup(t, map[string]string{"PGTZ": "Europe/Berlin", "PGOPTIONS": "-c work_mem=4MB"}, "")
		c := Config{PostgresURL: url}
		_, err := c.PostgresConfig()
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", url, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret")):
			t.Errorf("%s: %v, want %s", url, err, want)
		}
	}
}
