package config

import (
	"strings"
	"testing"
)

// TestFaultsOfThePostgresURL: what the driver cannot read is named by its part, and no text that
// may be a piece of a password is repeated.
func TestFaultsOfThePostgresURL(t *testing.T) {
	const host = "localhost/app"
	for given, want := range map[string]string{
		"postgres://u:sec%zzret@" + host:                           "has a % that no two hexadecimal digits follow in the password: write %25, or give the password in PGPASSWORD",
		"postgres://u:secret%@" + host:                             "in the password: write %25",
		"postgres://u:sec ret@" + host:                             "has a space in the password: write %20",
		"postgres://u:secret%00@" + host:                           "has a zero byte in the password",
		"postgres://u%x:secret@" + host:                            "in the user: write %25",
		"postgres://u x:secret@" + host:                            "has a space in the user: write %20",
		"postgres://u:secret@local%host/app":                       "in the host: write %25",
		"postgres://u:secret@[::1/app":                             "an IPv6 address that is not written as [::1]",
		"postgres://u:secret@[]/app":                               "an IPv6 address that is not written as [::1]",
		"postgres://u:secret@localhost/my app":                     "has a space in the database: write %20",
		"postgres://u:secret@localhost/a%app":                      "in the database: write %25",
		"postgres://u:secret@" + host + "?sslmode=%":               `in the value of parameter "sslmode": write %25`,
		"postgres://u@" + host + "?password=sec%ret":               `in the value of parameter "password": write %25`,
		"postgres://u@" + host + "?password=secret=":               `has an = in the value of parameter "password": write %3D`,
		"postgres://u:secret@" + host + "?sslmode":                 "has a parameter without a value",
		"postgres://u:secret@" + host + "?%x=secret":               "in the name of a parameter: write %25",
		"postgres://u:secret@localhost:54x/app":                    `has a port that is not between 1 and 65535, after host "localhost"`,
		"postgres://u:secret@[::1]:0/app":                          `after host "[::1]"`,
		"postgres://u:secret@a:1,b:99999/app":                      `after host "b"`,
		"postgres://u:secret/app":                                  `after host "u"`,
		"postgres://u:secret@" + host + "?port=x":                  "has a port that is not between 1 and 65535",
		"postgres://u:secret@" + host + "?connect_timeout=secret":  "cannot be used: invalid connect_timeout",
		"postgres://u:secret@" + host + "?service=nowhere":         "service",
		"postgres://u:secret@" + host + "?sslmode=nowhere":         "cannot be used: failed to configure TLS: sslmode is invalid",
		"postgres://u:secret@db/app?sslrootcert=/nowhere":          "/nowhere: no such file",
		"postgres://u:secret@" + host + "?target_session_attrs=no": "unknown target_session_attrs value: no",
		"host=localhost password='secret":                          "has a quotation mark that is not closed",
		"host=localhost password=secret dbname":                    "has a keyword without a value",
		"host=localhost dbname password=secret":                    "has a keyword without a value",
		"host=localhost port=secret":                               "has a port that is not between 1 and 65535",
		"=secret":                                                  "has a keyword without a value",
	} {
		setup(t, nil, "")
		c := Config{PostgresURL: given}
		if _, err := c.PostgresConfig(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "failed to parse") {
			t.Errorf("%s: %v, want %s", given, err, want)
		}
	}
}
