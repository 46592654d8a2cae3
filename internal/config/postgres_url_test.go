package config

import (
	"strings"
	"testing"
)

// TestSSLModeOfAnyURL: what the driver reads as a URL has verify-full if it names no sslmode, and
// else what it names, whatever the password and the list of hosts look like.
func TestSSLModeOfAnyURL(t *testing.T) {
	for _, before := range []string{
		"postgres://u:secret@db.example.com/app",
		"postgres://u:sec?ret@db.example.com/app",
		"postgres://u:sec#ret@db.example.com/app",
		"postgres://u:1#ret@db.example.com/app",
		"postgres://u:s|e^c[ret@db.example.com/app",
		"postgresql://u:sec?a=b&ret@db.example.com/app",
		"postgres://u:sec?sslmode=disable&ret@db.example.com/app",
		"postgres://u@db1.example.com:1,db2.example.com/app",
		"postgres://u@[2001:db8::1],db2.example.com/app",
		"postgres://db.example.com",
		"postgres://db.example.com/app?",
	} {
		setup(t, nil, "")
		c := Config{PostgresURL: before}
		got, err := c.PostgresConfig()
		if err != nil {
			t.Errorf("%s: %v", before, err)
			continue
		}
		if tls := got.TLSConfig; tls == nil || tls.InsecureSkipVerify || tls.ServerName != got.Host || strings.Contains(got.Database, "sslmode") {
			t.Errorf("%s: the server is not verified in full, database %q", before, got.Database)
		}
		for _, fallback := range got.Fallbacks {
			if fallback.TLSConfig == nil || fallback.TLSConfig.InsecureSkipVerify {
				t.Errorf("%s: a fallback to %s is not verified", before, fallback.Host)
			}
		}
		c.PostgresURL = strings.TrimSuffix(before, "?") + "?sslmode=disable"
		if got, err := c.PostgresConfig(); err != nil || got.TLSConfig != nil {
			t.Errorf("%s: sslmode=disable is not heeded (%v)", c.PostgresURL, err)
		}
	}
}

func TestPasswordsInAnyURL(t *testing.T) {
	for given, want := range map[string]bool{
		"postgres://u@h/db":                       false,
		"postgres://u@h:1,h2:2/db?sslmode=a":      false,
		"postgres://h:5432/db?application_name=@": false,
		"postgres://u:secret@h/db":                true,
		"postgres://u:sec?ret@h/db":               true,
		"postgres://u:sec#ret@h/db":               true,
		"postgres://u:sec/ret@h/db":               true,
		"postgres://u:s@cret@h/db":                true,
		"postgres://h1:1,h2/db?password=secret":   true,
		"postgres://h/db?pass%77ord=secret":       true,
		"postgres://u@h/db?sslpassword=secret":    true,
	} {
		if got := holdsPassword(given); got != want {
			t.Errorf("%s holds a password: %t", given, got)
		}
	}
}
