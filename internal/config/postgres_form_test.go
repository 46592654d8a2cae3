package config

import (
	"strings"
	"testing"
)

// TestFormOfThePostgresURL refuses what belongs to other drivers, and says whose it is. The
// password is never repeated.
func TestFormOfThePostgresURL(t *testing.T) {
	const host = "localhost/app"
	for given, want := range map[string]string{
		"postgres://u:secret@" + host + "?schema=public":                       `"schema", which belongs to Prisma`,
		"postgres://u:secret@" + host + "?pool_max_conns=10":                   `"pool_max_conns", which belongs to the pool of pgx`,
		"postgres://u:secret@" + host + "?ssl=true":                            `"ssl", which belongs to JDBC and node-postgres`,
		"host=localhost password=secret ssl=true":                              `"ssl", which belongs to JDBC and node-postgres`,
		"postgres://u:secret@" + host + "?currentSchema=x":                     `"currentSchema", which belongs to JDBC`,
		"postgres://u:secret@" + host + "?hostaddr=10.0.0.1":                   `"hostaddr" of libpq`,
		"postgres://u:secret@" + host + "?replication=database":                `"replication" of libpq`,
		"postgres://u:secret@" + host + "?gssencmode=require":                  "GSS encryption",
		"postgresql+asyncpg://u:secret@" + host:                                "postgresql+asyncpg://, of SQLAlchemy",
		"postgresql+psycopg2://u:secret@" + host:                               "of SQLAlchemy",
		"jdbc:postgresql://" + host + "?user=u&password=secret":                "a URL of JDBC",
		"JDBC:postgresql://" + host:                                            "a URL of JDBC",
		"POSTGRES://u:secret@" + host:                                          "in upper case",
		"mysql://u:secret@" + host:                                             "mysql://, which is not one of Postgres",
		"cockroachdb://u:secret@" + host:                                       "cockroachdb://, which is not one of Postgres",
		"http://u:secret@" + host:                                              "http://, which is not one of Postgres",
		"postgres:u:secret@" + host:                                            "no //",
		`"postgres://u:secret@` + host + `"`:                                   "quotation mark",
		"'postgres://u:secret@" + host + "'":                                   "quotation mark",
		" postgres://u:secret@" + host:                                         "white space",
		"postgres://u:secret@" + host + "\n":                                   "white space",
		"db.example.com":                                                       "not a Postgres URL",
		"localhost:5432/app":                                                   "not a Postgres URL",
		"\ufeffpostgres://u:secret@" + host + "?sslmode=disable":               "something before",
		"psql postgres://u:secret@" + host:                                     "something before",
		"DATABASE_URL=postgres://u:secret@" + host:                             "something before",
		"host=postgres://u:secret@" + host:                                     "something before",
		"dbname='postgres://u:secret@" + host + "'":                            "something before",
		"“postgres://u:secret@" + host + "?a=b”":                               "something before",
		"//u:secret@" + host + "?sslmode=disable":                              "not a Postgres URL",
		"u@" + host + "?application_name=secret":                               "not a Postgres URL",
		"Host=localhost;Database=app;Password=secret":                          `"Host" in the wrong case: write host`,
		"HOST=localhost PASSWORD=secret":                                       `"HOST" in the wrong case: write host`,
		"Server=localhost;Password=secret":                                     `"Server", which belongs to Npgsql`,
		"host=localhost;password=secret":                                       "a host with a character",
		"host=u:secret@localhost":                                              "a host with a character",
		"host=tcp(localhost:1)/secret":                                         "a host with a character",
		"postgres://u:1/secret@" + host:                                        "an unescaped / or @",
		"postgres://u:se@cret/secret@" + host:                                  "an unescaped / or @",
		"postgres://postgres://u:secret@" + host:                               "an unescaped / or @",
		"postgres:///u:secret@" + host:                                         "an unescaped / or @",
		"postgres://u:secret@https://" + host:                                  "begins with a slash",
		"postgres://u:secret@" + host + ";sslmode=disable":                     "parameters after a semicolon",
		"postgres://u:secret@" + host + "\u00a0":                               "white space",
		"postgres://u:secret@" + host + "?SSLMODE=disable":                     `"SSLMODE" in the wrong case: write sslmode`,
		"postgres://localhost/app?Password=secret":                             `"Password" in the wrong case: write password`,
		"postgres://u:secret@" + host + "?amp;sslmode=disable":                 "no setting of Postgres can have",
		"postgres://u:secret@" + host + "?=x":                                  "no setting of Postgres can have",
		"postgres://u:secret@" + host + "?username=x":                          `"username", which belongs to Npgsql`,
		"postgres://u:secret@" + host + "?sslmode=no-verify":                   "sslmode is invalid",
		"postgres://u:secret@" + host + "?keepalives=1&gssencmode=prefer":      "",
		"postgres://u:secret@" + host + "?search_path=a&application_name=b":    "",
		"postgres://u:secret@" + host + "?load_balance_hosts=random":           "",
		"postgres://u:secret@" + host + "?TimeZone=UTC&DateStyle=ISO":          "",
		"postgres://u:secret@" + host + "?default_query_exec_mode=exec":        "",
		" host=localhost password=secret ":                                     "",
		"host=/tmp,localhost dbname=a@b user=u":                                "",
		"postgres://u:se?c#ret@" + host + "?krbspn=x&min_protocol_version=3.0": "",
		"postgres://u:secret@[::1]:5432,localhost:5433/a%40b":                  "",
		"postgres://u:secret@%2Ftmp/app?my.setting=x&APPLICATION_NAME=y":       "",
		"dbname = app password = 'a b;c@d://e'":                                "",
		"postgres://":                                                          "",
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
