package config

import (
	"strings"
	"testing"
)

// TestFormOfThePostgresURL refuses what belongs to other drivers, and says whose it is. The password is never repeated.
func TestFormOfThePostgresURL(t *testing.T) {
	const host = "localhost/app"
	for given, want := range map[string]string{
		"postgres://u:secret@" + host + "?schema=public":                    `"schema", which is of Prisma`,
		"postgres://u:secret@" + host + "?pool_max_conns=10":                `"pool_max_conns", which is of the pool of pgx`,
		"postgres://u:secret@" + host + "?ssl=true":                         `"ssl", which is of JDBC and node-postgres`,
		"host=localhost password=secret ssl=true":                           `"ssl", which is of JDBC and node-postgres`,
		"postgres://u:secret@" + host + "?currentSchema=x":                  `"currentSchema", which is of JDBC`,
		"postgres://u:secret@" + host + "?hostaddr=10.0.0.1":                `"hostaddr" of libpq`,
		"postgres://u:secret@" + host + "?replication=database":             `"replication" of libpq`,
		"postgres://u:secret@" + host + "?gssencmode=require":               "GSS encryption",
		"postgresql+asyncpg://u:secret@" + host:                             "postgresql+asyncpg://, of SQLAlchemy",
		"postgresql+psycopg2://u:secret@" + host:                            "of SQLAlchemy",
		"jdbc:postgresql://" + host + "?user=u&password=secret":             "a URL of JDBC",
		"JDBC:postgresql://" + host:                                         "a URL of JDBC",
		"POSTGRES://u:secret@" + host:                                       "in upper case",
		"mysql://u:secret@" + host:                                          "mysql://, which is not of Postgres",
		"cockroachdb://u:secret@" + host:                                    "cockroachdb://, which is not of Postgres",
		"http://u:secret@" + host:                                           "http://, which is not of Postgres",
		"postgres:u:secret@" + host:                                         "no //",
		`"postgres://u:secret@` + host + `"`:                                "quotation mark",
		"'postgres://u:secret@" + host + "'":                                "quotation mark",
		" postgres://u:secret@" + host:                                      "white space",
		"postgres://u:secret@" + host + "\n":                                "white space",
		"db.example.com":                                                    "not a Postgres URL",
		"localhost:5432/app":                                                "not a Postgres URL",
		"postgres://u:secret@" + host + "?keepalives=1&gssencmode=prefer":   "",
		"postgres://u:secret@" + host + "?search_path=a&application_name=b": "",
		"postgres://u:secret@" + host + "?load_balance_hosts=random":        "",
		"postgres://u:secret@" + host + "?TimeZone=UTC&DateStyle=ISO":       "",
		"postgres://u:secret@" + host + "?default_query_exec_mode=exec":     "",
		" host=localhost password=secret ":                                  "",
		"postgres://":                                                       "",
	} {
		setup(t, nil, "")
		c := Config{PostgresURL: given}
		got, err := c.PostgresConfig()
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", given, err)
		case want == "":
			for _, name := range []string{"keepalives", "gssencmode", "load_balance_hosts"} {
				if _, there := got.RuntimeParams[name]; there {
					t.Errorf("%s: %s goes to the server", given, name)
				}
			}
		case err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: %v, want %s", given, err, want)
		}
	}
}
