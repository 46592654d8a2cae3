package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue returns a certificate of an authority and its key, in PEM form; of a nil authority one that
// signs itself.
func (a *authority) issue(t testing.TB, name string) (*authority, []byte, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	by := &authority{template, key}
	if a == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage, template.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	} else {
		by = a
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// tlsFiles are those of a broker and of the relay.
type tlsFiles struct{ dir string }

func (f tlsFiles) path(name string) string { return filepath.Join(f.dir, name) }

func (f tlsFiles) write(t testing.TB, name string, content ...[]byte) {
	t.Helper()
	if err := os.WriteFile(f.path(name), slices.Concat(content...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// issue writes new files of the broker under a new authority, and returns that of the relay, and
// the login of the test's clients.
func (f tlsFiles) issue(t testing.TB, name string) (ca, cert, key []byte, login []kgo.Opt) {
	t.Helper()
	signer, ca, _ := (*authority)(nil).issue(t, name)
	_, brokerCert, brokerKey := signer.issue(t, "broker")
	f.write(t, "broker.pem", brokerKey, brokerCert)
	f.write(t, "clients.pem", ca)
	_, cert, key = signer.issue(t, "walpost of "+name)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return ca, cert, key, []kgo.Opt{kgo.DialTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{pair}})}
}

// TestCertificatesRotated gives the broker certificates of another authority, and the relay its
// files one after the other. It says which of them is refused, and goes on without a restart.
func TestCertificatesRotated(t *testing.T) {
	t.Parallel()
	f := tlsFiles{t.TempDir()}
	ca, cert, key, login := f.issue(t, "yesterday")
	env := Setup(t, Needs{Kafka: Own, KafkaConfig: map[string]string{
		"listener.security.protocol.map": "CLIENT:SSL,CONTROLLER:PLAINTEXT", "ssl.client.auth": "required",
		"ssl.keystore.type": "PEM", "ssl.keystore.location": f.path("broker.pem"),
		"ssl.truststore.type": "PEM", "ssl.truststore.location": f.path("clients.pem"),
	}})
	env.Login = login
	env.Init(t)
	f.write(t, "ca.pem", ca)
	f.write(t, "cert.pem", cert)
	f.write(t, "key.pem", key)
	relay := env.Run(t, "WALPOST_KAFKA_TLS=true", "WALPOST_KAFKA_CA_FILE="+f.path("ca.pem"),
		"WALPOST_KAFKA_CERT_FILE="+f.path("cert.pem"), "WALPOST_KAFKA_KEY_FILE="+f.path("key.pem"))
	relay.Ready(t, 30*time.Second)
	insert(t, env, "order", "k", 1)
	awaitRecords(t, env, env.Prefix+"order", 1)

	ca, cert, key, env.Login = f.issue(t, "today")
	reconfigure(t, env, nil)
	insert(t, env, "order", "k", 1)
	says := func(texts ...string) {
		t.Helper()
		var reasons string
		defer func() { t.Logf("/readyz says %s", strings.TrimSpace(reasons)) }()
		Eventually(t, 30*time.Second, fmt.Sprintf("the relay to say %q", texts), func() bool {
			var code int
			code, reasons = relay.Get("/readyz")
			return code == 503 && !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(reasons, text) })
		})
	}
	says("the broker's certificate is refused by the authorities in WALPOST_KAFKA_CA_FILE " + f.path("ca.pem"))
	f.write(t, "ca.pem", ca[:len(ca)/2]) // half written
	says("no certificate in PEM form in " + f.path("ca.pem"))
	f.write(t, "ca.pem", ca)
	says("the broker refuses the client certificate in WALPOST_KAFKA_CERT_FILE "+f.path("cert.pem"),
		"CN=walpost of yesterday")
	f.write(t, "cert.pem", cert)
	says(f.path("key.pem"), "private key does not match")
	f.write(t, "key.pem", key)
	relay.Ready(t, time.Minute)
	if n := len(awaitRecords(t, env, env.Prefix+"order", 2)); n != 2 {
		t.Errorf("%d records, want 2", n)
	}
	relay.Stop(t)
}
