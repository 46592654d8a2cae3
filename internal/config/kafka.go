package config

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// KafkaOptions is whom to reach as whom: seeds, SASL and the client's name. It goes with KafkaDialer, and says nothing of
// producing.
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

// kafkaDialTimeout bounds one attempt to connect to a broker.
const kafkaDialTimeout = 10 * time.Second

// KafkaDialer is how to connect to a broker: plain, or with TLS.
func (c *Config) KafkaDialer() (func(ctx context.Context, network, addr string) (net.Conn, error), error) {
	dialer := &net.Dialer{Timeout: kafkaDialTimeout}
	if !c.KafkaTLS {
		return dialer.DialContext, nil
	}
	tlsConfig, err := c.kafkaTLSConfig()
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{NetDialer: dialer, Config: tlsConfig}).DialContext, nil
}

func (c *Config) kafkaTLSConfig() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.KafkaTLSServerName}
	if c.KafkaCAFile != "" {
		pool, err := readAuthorities(c.KafkaCAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if c.KafkaCertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.KafkaCertFile, c.KafkaKeyFile)
		if err != nil {
			return nil, fmt.Errorf("load client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func readAuthorities(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read authorities: no certificate in PEM form in %s", path)
	}
	return pool, nil
}

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
	return nil, fmt.Errorf("choose SASL mechanism: %q is not one of plain, scram-sha-256, scram-sha-512", c.KafkaSASLMechanism)
}

func (c *Config) kafkaPassword() (string, error) {
	if c.KafkaSASLPasswordFile == "" {
		return c.KafkaSASLPassword, nil
	}
	text, err := os.ReadFile(c.KafkaSASLPasswordFile)
	if err != nil {
		return "", fmt.Errorf("read password file: %w", err)
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return "", fmt.Errorf("read password file: %s is empty", c.KafkaSASLPasswordFile)
	}
	return password, nil
}

// checkHostPort checks host or host:port, where a port is needed or not.
func checkHostPort(given string, portNeeded bool) (host string, err error) {
	if strings.Contains(given, "://") {
		return "", errors.New("is a URL, where host:port is meant")
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
