package config

import (
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// columnNames are the columns of an outbox table that may have another name.
var columnNames = []string{"id", "aggregatetype", "aggregateid", "type", "payload", "headers", "created_at"}

// kafkaPort is that of a broker without one.
const kafkaPort = "9092"

const (
	minInFlight = ByteSize(1 << 20)
	maxLinger   = time.Minute
	minInterval = time.Millisecond
	maxInterval = 10 * time.Second // the brokers give a transaction up after 15 seconds
	minBatch    = ByteSize(64 << 10)
	minRequest  = ByteSize(1 << 20)
	maxRequest  = ByteSize(1 << 30)
)

// OriginNone is the origin by which rows that a subscription has written are no events.
const OriginNone = "none"

// ExactlyOnce is the delivery that publishes in Kafka transactions.
const ExactlyOnce = "exactly-once"

// Validate lists every fault of the settings, one line each; none means that the settings can be
// used. Flags named as optional may be missing, such as "kafka-brokers" for a command that does not
// need Kafka.
func (c *Config) Validate(optional ...string) []string { return c.check(optional).lines() }

func (c *Config) check(optional []string) faults {
	var f faults
	for i, broker := range c.KafkaBrokers {
		c.KafkaBrokers[i] = strings.TrimSpace(broker) // behind a comma, as people write lists
	}
	c.checkPostgres(&f, slices.Contains(optional, "postgres-url"))
	c.checkTables(&f)
	c.checkBrokers(&f, slices.Contains(optional, "kafka-brokers"))
	c.checkTopics(&f)
	c.checkKafkaTLS(&f)
	c.checkKafkaSASL(&f)
	c.checkRunning(&f)
	return f
}

func (c *Config) checkPostgres(f *faults, optional bool) {
	switch {
	case strings.TrimSpace(c.PostgresURL) != "":
		if _, err := c.PostgresConfig(); err != nil {
			f.add("postgres-url", "%v", err)
		}
	case !optional:
		f.add("postgres-url", "is required, such as postgres://walpost@db.example.com/orders "+
			"(postgres:// alone takes everything from PG* variables)")
	}
	if c.Origin != "any" && c.Origin != OriginNone {
		f.add("origin", "%q is neither any nor none", c.Origin)
	}
	if !slotName.MatchString(c.Slot) {
		f.add("slot", "%q is not a slot name: Postgres allows 1 to 63 lower case letters, digits and "+
			"underscores", c.Slot)
	}
	if err := checkName(c.Publication); err != "" {
		f.add("publication", "%q is not a publication name: %s", c.Publication, err)
	}
}

func (c *Config) checkTables(f *faults) {
	if len(c.Table) == 0 {
		f.add("table", "is empty, and at least one outbox table is needed")
	}
	named := map[Table]bool{}
	for _, given := range c.Table {
		table, err := parseTable(given)
		switch {
		case err != nil:
			f.add("table", "%v", err)
		case named[table]:
			f.add("table", "%s is given twice", table)
		}
		named[table] = true
	}
	for _, name := range slices.Sorted(maps.Keys(c.Columns)) {
		if !slices.Contains(columnNames, name) {
			f.add("columns", "%q is not a column that can be mapped: "+
				"those are %s", name, strings.Join(columnNames, ", "))
			continue
		}
		if err := checkName(c.Columns[name]); err != "" {
			f.add("columns", "%s=%q does not name a column: %s", name, c.Columns[name], err)
		}
		for _, other := range columnNames {
			own, mapped := c.Columns[other]
			if !mapped {
				own = other
			}
			twice := mapped && other > name // of two that are mapped, one says it
			if own == c.Columns[name] && other != name && !twice && !mayShare(name, other) {
				f.add("columns", "%s and %s are both column %q", name, other, own)
			}
		}
	}
}

// mayShare reports whether one column may be two of the contract: the aggregateid may be the id,
// but payload, headers and created_at are columns of their own.
func mayShare(a, b string) bool {
	own := []string{"payload", "headers", "created_at"}
	return !slices.Contains(own, a) && !slices.Contains(own, b)
}

// checkName says what is wrong with an identifier that is used as it is given.
func checkName(name string) string {
	switch {
	case name == "":
		return "it is empty"
	case len(name) > maxIdentifier:
		return "it is longer than 63 bytes"
	case strings.ContainsRune(name, 0):
		return "it holds a zero byte"
	}
	return ""
}

func (c *Config) checkBrokers(f *faults, optional bool) {
	if len(c.KafkaBrokers) == 0 && !optional {
		f.add("kafka-brokers", "is required, such as kafka-1.example.com:9092,kafka-2.example.com:9092")
	}
	given := map[string]bool{}
	for _, broker := range c.KafkaBrokers {
		host, err := checkHostPort(broker, false)
		address := strings.ToLower(broker)
		if strings.ToLower(host) == address {
			address = net.JoinHostPort(address, kafkaPort)
		}
		switch {
		case err != nil:
			f.add("kafka-brokers", "%q %v", broker, err)
		case host == "":
			f.add("kafka-brokers", "%q has no host", broker)
		case given[address]:
			f.add("kafka-brokers", "%q is given twice", broker)
		}
		given[address] = true
	}
}

func (c *Config) checkTopics(f *faults) {
	constant, err := checkTemplate(c.Topic)
	if err != nil {
		f.add("topic", "%v", err)
	}
	if err := checkTopic(c.StateTopic); err != nil {
		f.add("state-topic", "%v", err)
	} else if constant && c.StateTopic == c.Topic {
		f.add("state-topic", "%q is also the topic of the events: the position needs a topic of its own", c.StateTopic)
	}
	switch c.Delivery {
	case "at-least-once", ExactlyOnce:
	default:
		f.add("delivery", "%q is neither at-least-once nor exactly-once", c.Delivery)
	}
	if c.TransactionInterval < minInterval || c.TransactionInterval > maxInterval {
		f.add("transaction-interval", "%s is not between %s and %s", c.TransactionInterval, minInterval, maxInterval)
	}
	if c.TransactionBytes < minBatch {
		f.add("transaction-bytes", "%s is less than %s", c.TransactionBytes, minBatch)
	}
	if c.KafkaMaxRequestBytes < minRequest || c.KafkaMaxRequestBytes > maxRequest {
		f.add("kafka-max-request-bytes", "%s is not between %s and %s", c.KafkaMaxRequestBytes, minRequest, maxRequest)
	}
	if c.KafkaLinger < 0 || c.KafkaLinger > maxLinger {
		f.add("kafka-linger", "%s is not between 0 and %s", c.KafkaLinger, maxLinger)
	}
}

func (c *Config) checkKafkaTLS(f *faults) {
	settings := []struct{ flag, value string }{
		{"kafka-ca-file", c.KafkaCAFile},
		{"kafka-cert-file", c.KafkaCertFile},
		{"kafka-key-file", c.KafkaKeyFile},
		{"kafka-tls-server-name", c.KafkaTLSServerName},
	}
	for _, setting := range settings {
		if setting.value != "" && !c.KafkaTLS {
			f.add(setting.flag, "has no effect without TLS: set --kafka-tls (%s) as well", variable("kafka-tls"))
		}
	}
	if c.KafkaCAFile != "" {
		if _, err := readAuthorities(c.KafkaCAFile); err != nil {
			f.add("kafka-ca-file", "%v", err)
		}
	}
	switch {
	case c.KafkaCertFile != "" && c.KafkaKeyFile == "":
		f.add("kafka-key-file", "is required with --kafka-cert-file (%s)", variable("kafka-cert-file"))
	case c.KafkaCertFile == "" && c.KafkaKeyFile != "":
		f.add("kafka-cert-file", "is required with --kafka-key-file (%s)", variable("kafka-key-file"))
	case c.KafkaCertFile != "":
		withoutCA := Config{KafkaCertFile: c.KafkaCertFile, KafkaKeyFile: c.KafkaKeyFile}
		if _, err := withoutCA.kafkaTLSConfig(); err != nil {
			f.add("kafka-cert-file", "%v", err)
		}
	}
}

func (c *Config) checkKafkaSASL(f *faults) {
	if c.KafkaSASLMechanism == "" {
		if c.KafkaSASLUser != "" || c.KafkaSASLPasswordFile != "" || c.KafkaSASLPassword != "" {
			f.add("kafka-sasl-mechanism", "is required with a user or a password for SASL: plain, "+
				"scram-sha-256 or scram-sha-512")
		}
		return
	}
	if _, err := c.kafkaSASL(); err != nil {
		f.add("kafka-sasl-mechanism", "%q is not one of plain, scram-sha-256, scram-sha-512", c.KafkaSASLMechanism)
	}
	if c.KafkaSASLUser == "" {
		f.add("kafka-sasl-user", "is required with --kafka-sasl-mechanism (%s)", variable("kafka-sasl-mechanism"))
	}
	switch {
	case c.KafkaSASLPasswordFile != "" && c.KafkaSASLPassword != "":
		f.add("kafka-sasl-password-file", "and %s are both given: give one", passwordVariable)
	case c.KafkaSASLPasswordFile != "":
		if _, err := c.kafkaPassword(); err != nil {
			f.add("kafka-sasl-password-file", "%v", err)
		}
	case c.KafkaSASLPassword == "":
		f.add("kafka-sasl-password-file", "is required with --kafka-sasl-mechanism, or the password itself in %s",
			passwordVariable)
	}
	if !c.KafkaTLS && !c.brokersLocal() {
		f.add("kafka-tls", "is required with SASL: without TLS others could read the login on the network")
	}
}

func (c *Config) brokersLocal() bool {
	for _, broker := range c.KafkaBrokers {
		// A broker that cannot be read is reported as such; here it counts as one on another
		// machine.
		if host, err := checkHostPort(broker, false); err != nil || !localHost(host) {
			return false
		}
	}
	return true
}

func (c *Config) checkRunning(f *faults) {
	if c.MaxInFlightBytes < minInFlight {
		f.add("max-in-flight-bytes", "%s is less than %s, which one large event needs", c.MaxInFlightBytes, minInFlight)
	}
	if c.DrainTimeout <= 0 {
		f.add("drain-timeout", "%s must be more than 0", c.DrainTimeout)
	}
	if c.HTTPAddr != "" {
		if _, err := checkHostPort(c.HTTPAddr, true); err != nil {
			f.add("http-addr", "%q %v", c.HTTPAddr, err)
		}
	}
	level, err := zerolog.ParseLevel(c.LogLevel)
	if err != nil || level < zerolog.TraceLevel || level > zerolog.ErrorLevel || c.LogLevel != level.String() {
		f.add("log-level", "%q is not one of trace, debug, info, warn, error", c.LogLevel)
	}
	if !slices.Contains([]string{"auto", "json", "console"}, c.LogFormat) {
		f.add("log-format", "%q is not one of auto, json, console", c.LogFormat)
	}
}

// readEnvironment takes the settings that exist in the environment alone.
func (c *Config) readEnvironment() { c.KafkaSASLPassword = os.Getenv(passwordVariable) }
