package config

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// kafkaDialTimeout bounds one attempt to connect to a broker.
const kafkaDialTimeout = 10 * time.Second

// KafkaDialer is how to connect to a broker: plain, or with TLS. The files of TLS are read at each
// connection, so that files which are rotated need no restart. One that is missing or half written
// for a moment is an outage of that connection.
func (c *Config) KafkaDialer() (func(ctx context.Context, network, addr string) (net.Conn, error), error) {
	dialer := &net.Dialer{Timeout: kafkaDialTimeout}
	if !c.KafkaTLS {
		return dialer.DialContext, nil
	}
	if _, err := c.kafkaTLSConfig(); err != nil {
		return nil, err
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		config, err := c.kafkaTLSConfig()
		if err != nil {
			return nil, &unreadableError{err}
		}
		conn, err := (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, c.tlsError(config, err)
		}
		return &tlsConn{Conn: conn, explain: func(err error) error { return c.tlsError(config, err) }}, nil
	}, nil
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
			return nil, fmt.Errorf("load client certificate %s and key %s: %w", c.KafkaCertFile, c.KafkaKeyFile, err)
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

// tlsConn says which certificate a broker refuses. With TLS 1.3 the refusal comes after the
// handshake, with the first read.
type tlsConn struct {
	net.Conn
	explain func(error) error
}

func (c *tlsConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		err = c.explain(err)
	}
	return n, err
}

// tlsError names the file that one side or the other refuses. Other errors it returns as they are.
func (c *Config) tlsError(config *tls.Config, err error) error {
	var refused *tls.CertificateVerificationError
	if errors.As(err, &refused) {
		authorities := "the authorities of the system, since WALPOST_KAFKA_CA_FILE is empty"
		if c.KafkaCAFile != "" {
			authorities = "the authorities in WALPOST_KAFKA_CA_FILE " + c.KafkaCAFile
		}
		return fmt.Errorf("the broker's certificate is refused by %s: %w", authorities, err)
	}
	var alert *net.OpError
	if !errors.As(err, &alert) || alert.Op != "remote error" {
		return err
	}
	if len(config.Certificates) == 0 {
		return fmt.Errorf("the broker ends TLS, and there is no client certificate (WALPOST_KAFKA_CERT_FILE "+
			"is empty): %w",
			err)
	}
	subject := ""
	if leaf := config.Certificates[0].Leaf; leaf != nil {
		subject = fmt.Sprintf(" (subject %s, valid until %s)", leaf.Subject, leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return fmt.Errorf("the broker refuses the client certificate in WALPOST_KAFKA_CERT_FILE %s%s: %w",
		c.KafkaCertFile, subject, err)
}
