package config

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// KafkaOptions is whom to reach as whom: seeds, SASL and the client's name. It goes with
// KafkaDialer, and says nothing of producing.
func (c *Config) KafkaOptions() ([]kgo.Opt, error) {
	options := []kgo.Opt{kgo.SeedBrokers(c.KafkaBrokers...), kgo.ClientID("walpost")}
	if c.KafkaSASLMechanism != "" {
		mechanism, err := c.kafkaSASL()
		if err != nil {
			return nil, err
		}
		options = append(options, kgo.SASL(mechanism))
	}
	return options, nil
}

// KafkaLogin is who logs in at the brokers, and where the password comes from; empty = nobody does.
func (c *Config) KafkaLogin() string {
	switch {
	case c.KafkaSASLMechanism == "":
		return ""
	case c.KafkaSASLPasswordFile != "":
		return fmt.Sprintf("user %q with the password in WALPOST_KAFKA_SASL_PASSWORD_FILE %s",
			c.KafkaSASLUser, c.KafkaSASLPasswordFile)
	default:
		return fmt.Sprintf("user %q with the password in %s", c.KafkaSASLUser, passwordVariable)
	}
}

// unreadableError says that a file with credentials cannot be read. Whoever rotates it may be about
// to write it. The Kafka client asks an error whether it is temporary: it then tries again, and
// gives up no record that is on its way.
type unreadableError struct{ err error }

func (e *unreadableError) Error() string   { return e.err.Error() }
func (e *unreadableError) Unwrap() error   { return e.err }
func (e *unreadableError) Temporary() bool { return true }

// kafkaSASL reads the password at each login, so that a rotated password file needs no restart.
func (c *Config) kafkaSASL() (sasl.Mechanism, error) {
	login := func(context.Context) (scram.Auth, error) {
		password, err := c.kafkaPassword()
		return scram.Auth{User: c.KafkaSASLUser, Pass: password}, err
	}
	switch c.KafkaSASLMechanism {
	case "plain":
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			password, err := c.kafkaPassword()
			return plain.Auth{User: c.KafkaSASLUser, Pass: password}, err
		}), nil
	case "scram-sha-256":
		return scram.Sha256(login), nil
	case "scram-sha-512":
		return scram.Sha512(login), nil
	}
	return nil, fmt.Errorf("choose SASL mechanism: %q is not one of plain, scram-sha-256, scram-sha-512",
		c.KafkaSASLMechanism)
}

func (c *Config) kafkaPassword() (string, error) {
	if c.KafkaSASLPasswordFile == "" {
		return c.KafkaSASLPassword, nil
	}
	text, err := os.ReadFile(c.KafkaSASLPasswordFile)
	if err != nil {
		return "", &unreadableError{fmt.Errorf("read password file of user %q: %w", c.KafkaSASLUser, err)}
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		err := fmt.Errorf("read password file of user %q: %s is empty", c.KafkaSASLUser, c.KafkaSASLPasswordFile)
		return "", &unreadableError{err}
	}
	return password, nil
}

// checkHostPort checks host or host:port, where a port is needed or not.
func checkHostPort(given string, portNeeded bool) (host string, err error) {
	if strings.Contains(given, "://") {
		return "", errors.New("is a URL: give host:port")
	}
	host, port, err := net.SplitHostPort(given)
	if err != nil {
		if portNeeded || strings.Contains(given, ":") && net.ParseIP(given) == nil {
			return "", errors.New("is not host:port")
		}
		return given, nil
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 && !portNeeded {
		return "", fmt.Errorf("has no port between 1 and 65535: %q", port)
	}
	return host, nil
}
