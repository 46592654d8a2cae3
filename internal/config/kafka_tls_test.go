package config

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func (a *authority) pem() []byte { return encode("CERTIFICATE", a.cert.Raw) }

// issue returns a certificate and its key.
func (a *authority) issue(t *testing.T, name string) (cert, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return encode("CERTIFICATE", der), encode("EC PRIVATE KEY", keyDER)
}

// tlsServer answers each connection with a byte once TLS is agreed on. It asks for certificates of
// clients.
func tlsServer(t *testing.T, cert, key []byte, clients *authority, version uint16) string {
	t.Helper()
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(clients.cert)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MaxVersion: version,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = conn.Write([]byte{1})
				_ = conn.Close()
			}()
		}
	}()
	return listener.Addr().String()
}

// TestFilesAreReadAtEachConnection rotates key, certificate and authorities under a dialer. What is
// refused is named with its file, and the next connection works once the files are right.
func TestFilesAreReadAtEachConnection(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, other := newAuthority(t, "ours"), newAuthority(t, "other")
			serverCert, serverKey := ours.issue(t, "broker")
			addr := tlsServer(t, serverCert, serverKey, ours, version)
			dir := t.TempDir()
			c := Config{
				KafkaTLS: true, KafkaCAFile: filepath.Join(dir, "ca.pem"), KafkaCertFile: filepath.Join(dir, "cert.pem"), KafkaKeyFile: filepath.Join(dir, "key.pem"),
			}
			write := func(path string, content []byte) {
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cert, key := ours.issue(t, "walpost")
			right := func() {
				write(c.KafkaCAFile, ours.pem())
				write(c.KafkaCertFile, cert)
				write(c.KafkaKeyFile, key)
			}
			right()
			dial, err := c.KafkaDialer()
			if err != nil {
				t.Fatal(err)
			}
			connect := func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				conn, err := dial(ctx, "tcp", addr)
				if err != nil {
					return err
				}
				defer func() { _ = conn.Close() }()
				_, err = io.ReadFull(conn, make([]byte, 1))
				return err
			}
			foreignCert, foreignKey := other.issue(t, "walpost of another cluster")
			for _, step := range []struct {
				name  string
				wrong func()
				says  []string
			}{
				{"nothing", func() {}, nil},
				{"the certificate is of another authority", func() { write(c.KafkaCertFile, foreignCert); write(c.KafkaKeyFile, foreignKey) }, []string{
					"the broker refuses the client certificate in WALPOST_KAFKA_CERT_FILE " + c.KafkaCertFile, "CN=walpost of another cluster", "valid until",
				}},
				{"only the certificate is there yet", func() { write(c.KafkaCertFile, foreignCert) }, []string{c.KafkaCertFile, c.KafkaKeyFile, "private key does not match"}},
				{"the key is half written", func() { write(c.KafkaKeyFile, key[:len(key)/2]) }, []string{c.KafkaKeyFile}},
				{"the certificate is missing", func() { _ = os.Remove(c.KafkaCertFile) }, []string{c.KafkaCertFile, "no such file"}},
				{"other authorities", func() { write(c.KafkaCAFile, other.pem()) }, []string{"refused by the authorities in WALPOST_KAFKA_CA_FILE " + c.KafkaCAFile, "unknown authority"}},
				{"no authorities yet", func() { write(c.KafkaCAFile, nil) }, []string{"no certificate in PEM form in " + c.KafkaCAFile}},
			} {
				step.wrong()
				err := connect()
				if (err != nil) != (step.says != nil) {
					t.Errorf("%s: %v", step.name, err)
				}
				for _, text := range step.says {
					if err != nil && !strings.Contains(err.Error(), text) {
						t.Errorf("%s: %v, want %q", step.name, err, text)
					}
				}
				right()
				if err := connect(); err != nil {
					t.Errorf("%s, and then all is right again: %v", step.name, err)
				}
			}
		})
	}
}

// TestKafkaLogin names who logs in and never the password.
func TestKafkaLogin(t *testing.T) {
	t.Parallel()
	file := Config{KafkaSASLMechanism: "plain", KafkaSASLUser: "walpost", KafkaSASLPasswordFile: "/run/secret"}
	if got := file.KafkaLogin(); got != `user "walpost" with the password in WALPOST_KAFKA_SASL_PASSWORD_FILE /run/secret` {
		t.Error(got)
	}
	plain := Config{KafkaSASLMechanism: "plain", KafkaSASLUser: "walpost", KafkaSASLPassword: "hunter2"}
	if got := plain.KafkaLogin(); got != `user "walpost" with the password in WALPOST_KAFKA_SASL_PASSWORD` {
		t.Error(got)
	}
	if got := (&Config{}).KafkaLogin(); got != "" {
		t.Error(got)
	}
}
