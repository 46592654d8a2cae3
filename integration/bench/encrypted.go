package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/walpost/walpost/integration"
)

// identity is a certificate for this machine, which is its own authority, and its key.
var identity = sync.OnceValues(func() (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	must(err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// tlsBrokers are settings of brokers that speak TLS.
func tlsBrokers() map[string]string {
	cert, key := identity()
	line := func(text string) string { return strings.ReplaceAll(text, "\n", `\n`) }
	return map[string]string{
		"listener.security.protocol.map": "CLIENT:SSL,CONTROLLER:PLAINTEXT",
		"ssl.keystore.type":              "PEM", "ssl.keystore.certificate.chain": line(cert), "ssl.keystore.key": line(key),
		"ssl.truststore.type": "PEM", "ssl.truststore.certificates": line(cert),
	}
}

// encrypt turns TLS on in Postgres, and tells the relay and the clients of the benchmark.
func encrypt(h *host, env *integration.Env) []string {
	cert, key := identity()
	data := env.Server.DataDir()
	info, err := os.Stat(data)
	must(err)
	owner := info.Sys().(*syscall.Stat_t)
	for name, content := range map[string]string{"server.crt": cert, "server.key": key} {
		path := filepath.Join(data, name)
		must(os.WriteFile(path, []byte(content), 0o600))
		must(os.Chown(path, int(owner.Uid), int(owner.Gid)))
	}
	env.Exec(h, "ALTER SYSTEM SET ssl = on")
	env.Exec(h, "SELECT pg_reload_conf()")
	authority := filepath.Join(h.TempDir(), "ca.crt")
	must(os.WriteFile(authority, []byte(cert), 0o600))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(cert))
	env.Login = []kgo.Opt{kgo.DialTLSConfig(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})}
	address, _, _ := strings.Cut(env.URL(), "?")
	return []string{
		"WALPOST_POSTGRES_URL=" + address + "?sslmode=verify-full&sslrootcert=" + authority,
		"WALPOST_KAFKA_TLS=true", "WALPOST_KAFKA_CA_FILE=" + authority,
	}
}
