package config

import "time"

// Config is every setting that the commands share. Commands embed it; Parse fills and checks it.
// The zero value is not usable: defaults come from Parse.
type Config struct {
	Config string `placeholder:"FILE" help:"YAML file of settings; by default walpost.yaml in the working directory, if it exists. Its keys are the flags with underscores (kafka_brokers: [a:9092, b:9092]). Lists and maps are those of YAML; an unknown key is an error."`

	PostgresURL string            `name:"postgres-url" group:"Postgres" placeholder:"URL" help:"Required. libpq URL or keywords. PG* variables and the password file supply what it leaves out. Without an sslmode, connections to other hosts use verify-full. A password does not belong in the flag."`
	Table       []string          `group:"Postgres" sep:"," default:"public.outbox" help:"Outbox tables, comma-separated: schema.name, or a name alone for schema public. Double quotes as in SQL."`
	Columns     map[string]string `group:"Postgres" mapsep:"," placeholder:"NAME=COLUMN,..." help:"Where columns have other names: aggregatetype=aggregate_type,aggregateid=aggregate_id. Names: id, aggregatetype, aggregateid, type, payload, headers, created_at."`
	Origin      string            `group:"Postgres" default:"any" help:"any, or none: rows with a replication origin, such as those that a subscription writes, are not events."`
	Slot        string            `group:"Postgres" default:"walpost" help:"Logical replication slot."`
	Publication string            `group:"Postgres" default:"walpost" help:"Publication of the outbox tables."`

	KafkaBrokers         []string      `group:"Kafka" sep:"," placeholder:"HOST:PORT" help:"Required. Seed brokers, comma-separated."`
	Topic                string        `group:"Kafka" default:"outbox.event.{aggregatetype}" help:"Topic of an event. {column} stands for a column of the row."`
	StateTopic           string        `group:"Kafka" default:"walpost.state" help:"Topic that stores the relay's position: compacted, one partition, created if it is missing."`
	CreateTopics         bool          `group:"Kafka" default:"false" help:"Create missing topics of events with the brokers' defaults; otherwise report them and wait."`
	Delivery             string        `group:"Kafka" default:"at-least-once" help:"at-least-once, or exactly-once: events and position in Kafka transactions, for consumers with isolation.level=read_committed."`
	TransactionInterval  time.Duration `group:"Kafka" default:"100ms" help:"How long a Kafka transaction may stay open while events keep coming, with exactly-once delivery."`
	TransactionBytes     ByteSize      `group:"Kafka" default:"16MiB" help:"How much a Kafka transaction may hold, with exactly-once delivery; half of --max-in-flight-bytes at most."`
	KafkaMaxRequestBytes ByteSize      `group:"Kafka" default:"100MiB" help:"The largest request, at most socket.request.max.bytes of the brokers. An event has to fit into one."`
	KafkaLinger          time.Duration `group:"Kafka" default:"1ms" help:"How long a record may wait for others to share its batch."`

	KafkaTLS              bool   `name:"kafka-tls" group:"Kafka security" default:"false" help:"Connect to the brokers with TLS."`
	KafkaCAFile           string `name:"kafka-ca-file" group:"Kafka security" placeholder:"FILE" help:"PEM file of the certificate authorities to trust; by default those of the system."`
	KafkaCertFile         string `group:"Kafka security" placeholder:"FILE" help:"PEM file of the client certificate."`
	KafkaKeyFile          string `group:"Kafka security" placeholder:"FILE" help:"PEM file of the client certificate's key."`
	KafkaTLSServerName    string `name:"kafka-tls-server-name" group:"Kafka security" placeholder:"NAME" help:"Name to expect in the brokers' certificates; by default the host of each broker."`
	KafkaSASLMechanism    string `name:"kafka-sasl-mechanism" group:"Kafka security" placeholder:"NAME" help:"plain, scram-sha-256 or scram-sha-512."`
	KafkaSASLUser         string `name:"kafka-sasl-user" group:"Kafka security" placeholder:"USER" help:"User name for SASL."`
	KafkaSASLPasswordFile string `name:"kafka-sasl-password-file" group:"Kafka security" placeholder:"FILE" help:"File with the password for SASL, read at each login. The password itself can only be given in the environment, as WALPOST_KAFKA_SASL_PASSWORD."`
	KafkaSASLPassword     string `kong:"-"` // From WALPOST_KAFKA_SASL_PASSWORD alone. Never logged.

	MaxInFlightBytes ByteSize      `group:"Running" default:"8MiB" help:"In-flight bound: how much may be in flight, or published with its position not stored yet. Bytes, or with KiB, MiB, GiB."`
	DrainTimeout     time.Duration `group:"Running" default:"30s" help:"How long a stop may wait for events in flight."`
	HTTPAddr         string        `name:"http-addr" group:"Running" default:"127.0.0.1:8085" help:"Address of metrics, health and status; empty turns them off."`
	LogLevel         string        `group:"Running" default:"info" help:"trace, debug, info, warn or error."`
	LogFormat        string        `group:"Running" default:"auto" help:"json, console, or auto: console on a terminal."`
}

// passwordVariable is the one setting that only the environment may carry.
const passwordVariable = "WALPOST_KAFKA_SASL_PASSWORD"
