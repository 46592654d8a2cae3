package config

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

var scheme = regexp.MustCompile(`^(?i)([a-z][a-z0-9+.\-]*):`)

// checkForm refuses what the driver would take for an empty list of keywords, or would ask the
// default socket for. The text may hold a password anywhere, so nothing of it is repeated but a
// scheme.
func checkForm(given string) error {
	switch {
	case given == "":
		return nil
	case isURL(given):
		if _, found := queryValue(given, "ssl"); found { // the driver would replace it by sslmode
			return foreign(map[string]string{"ssl": ""})
		}
		return checkParts(given)
	case strings.TrimSpace(given) != given && strings.Contains(given, "://"):
		return errors.New("has white space around it: remove it")
	case strings.HasPrefix(given, `"`) || strings.HasPrefix(given, "'"):
		return errors.New("begins with a quotation mark: remove the quotes")
	}
	if found := scheme.FindStringSubmatch(given); found != nil {
		return checkScheme(found[1], strings.HasPrefix(given, found[0]+"//"))
	}
	switch lower := strings.ToLower(given); {
	case strings.Contains(lower, "postgres://") || strings.Contains(lower, "postgresql://"):
		return errors.New("has something before postgres://: give the URL alone")
	case !strings.Contains(given, "="):
		return errNeither
	}
	return nil
}

// errNeither is of what the driver would take for keywords that it does not know.
var errNeither = errors.New("is not a Postgres URL (postgres://user@host/database) " +
	"or list of keywords (host=... dbname=... user=...)")

// checkParts refuses a URL of which the driver would take a piece of the password for the host or
// the database, and repeat it in its errors.
func checkParts(given string) error {
	_, hosts, path, _ := splitURL(given)
	switch {
	case strings.TrimSpace(given) != given:
		return errors.New("has white space after it: remove it")
	case strings.Contains(hosts+path, "@"):
		return errors.New("has an unescaped / or @ in the password, or an @ in the database: write %2F and %40")
	case strings.HasPrefix(path, "//"):
		return errors.New("has a database that begins with a slash: it must be postgres://user@host/database")
	case strings.Contains(path, ";") && strings.Contains(path, "="):
		return errors.New("has parameters after a semicolon: they begin with ?, and & separates them")
	}
	return nil
}

// checkMeaning looks at what the driver has made of the text.
func checkMeaning(given string, config *pgconn.Config) error {
	hosts := []string{config.Host}
	for _, fallback := range config.Fallbacks {
		hosts = append(hosts, fallback.Host)
	}
	for _, host := range hosts {
		socket := strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@")
		if !socket && strings.ContainsAny(host, "/@;&=()'\"` ") {
			return errors.New("has a host with a character that no host has: / @ ; & = or a bracket. " +
				"White space separates keywords, " +
				"and a password in a URL has %2F for / and %40 for @")
		}
	}
	if err := foreign(config.RuntimeParams); err != nil {
		return err
	}
	for name := range config.RuntimeParams {
		switch {
		case settingName.MatchString(name):
		case isURL(given):
			return errors.New("has a parameter with a name that no setting of Postgres can have: " +
				"& separates parameters, and = follows a name")
		default:
			return errNeither
		}
	}
	return misspelled(config.RuntimeParams)
}

// settingName is how settings of Postgres are called; those of extensions have a dot. Another name
// may be a piece of a URL with a password in it.
var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*$`)

func checkScheme(name string, slashes bool) error {
	lower := strings.ToLower(name)
	base, driver, _ := strings.Cut(lower, "+")
	const wanted = "it must be postgres://user@host/database"
	switch {
	case lower == "jdbc":
		return errors.New("is a URL of JDBC (jdbc:): " + wanted)
	case base == "postgres" || base == "postgresql":
		switch {
		case driver != "":
			return fmt.Errorf("has the scheme %s://, of SQLAlchemy: %s", lower, wanted)
		case !slashes:
			return fmt.Errorf("has no // after %s: %s", name+":", wanted)
		}
		return fmt.Errorf("has the scheme %s:// in upper case: %s", name, wanted)
	case !slashes:
		return errNeither
	}
	return fmt.Errorf("has the scheme %s://, which is not one of Postgres: %s", lower, wanted)
}

// Whose parameters others are.
const (
	ofPrisma  = "Prisma"
	ofPgxPool = "the pool of pgx"
	ofJDBC    = "JDBC"
	ofNode    = "node-postgres"
	ofPython  = "asyncpg or SQLAlchemy"
	ofEcto    = "Ecto"
	ofRails   = "Rails"
	ofNpgsql  = "Npgsql"
)

// foreigners are parameters of other drivers, in lower case, by whose they are. Postgres has no
// setting of these names.
var foreigners = map[string][]string{
	ofPrisma: {
		"schema", "connection_limit", "pool_timeout", "socket_timeout", "pgbouncer", "sslaccept", "sslidentity",
		"statement_cache_size", "single_use_connections",
	},
	ofPgxPool: {
		"pool_max_conns", "pool_min_conns", "pool_min_idle_conns", "pool_max_conn_lifetime", "pool_max_conn_idle_time",
		"pool_health_check_period", "pool_max_conn_lifetime_jitter",
	},
	ofJDBC: {
		"currentschema", "applicationname", "logintimeout", "connecttimeout", "sockettimeout", "tcpkeepalive",
		"sslfactory", "preparethreshold", "prefersimplequerymode", "prefer_query_mode", "preferquerymode",
		"rewritebatchedinserts", "rewritebatchedinsert", "stringtype", "targetservertype", "loadbalancehosts",
		"reformatbatchedinserts", "binarytransfer", "assumeminserverversion", "defaultrowfetchsize", "readonly",
	},
	ofJDBC + " and " + ofNode: {"ssl"},
	ofNode:                    {"uselibpqcompat", "sslca", "idletimeoutmillis", "connectiontimeoutmillis", "max"},
	ofPython: {
		"prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback", "command_timeout",
	},
	ofEcto:  {"pool_size"},
	ofRails: {"pool", "prepared_statements", "encoding", "adapter", "schema_search_path"},
	ofNpgsql: {
		"server", "username", "uid", "user id", "pwd", "psw", "pooling", "timeout", "trust server certificate",
	},
	"lib/pq":          {"binary_parameters"},
	"a proxy of Neon": {"endpoint"},
}

// instead says what does the same here.
var instead = map[string][]string{
	"WALPOST_TABLE names the schema": {"schema", "currentschema", "schema_search_path"},
	"use sslmode":                    {"ssl", "sslaccept"},
	"use sslrootcert":                {"sslca"},
	"use application_name":           {"applicationname"},
	"use connect_timeout":            {"connecttimeout", "logintimeout"},
	"use target_session_attrs":       {"targetservertype"},
	"use host":                       {"server"},
	"use user":                       {"username", "uid", "user id"},
	"use password":                   {"pwd", "psw"},
	"walpost publishes UTF-8":        {"encoding"},
}

// keyOf returns the key of the list that has the name; empty = none has.
func keyOf(lists map[string][]string, name string) string {
	for key, names := range lists {
		if slices.Contains(names, name) {
			return key
		}
	}
	return ""
}

// harmless are parameters of libpq that the driver does not know, and that may be left out: the
// sockets have keepalives of their own, and GSS encryption is not asked for.
var harmless = []string{
	"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "fallback_application_name",
	"sslcompression", "gssdelegation", "gsslib", "load_balance_hosts",
}

// refusedOfLibpq are parameters of libpq without which the connection would not be the one that is
// asked for.
var refusedOfLibpq = map[string]string{
	"hostaddr":                 "give the address as host",
	"tcp_user_timeout":         "leave it out: walpost probes a silent server",
	"sslcrl":                   "leave it out: revocation lists are not supported",
	"sslcrldir":                "leave it out: revocation lists are not supported",
	"ssl_min_protocol_version": "leave it out: TLS 1.2 is the least",
	"ssl_max_protocol_version": "leave it out",
	"requiressl":               "use sslmode=require",
	"requirepeer":              "leave it out: it is not supported",
	"requireauth":              "use require_auth",
	"replication":              "leave it out: walpost chooses it for each connection",
	"sslkeylogfile":            "leave it out: keys are not logged",
	"scram_client_key":         "leave it out: give a password",
	"scram_server_key":         "leave it out: give a password",
	"oauth_issuer":             "leave it out: OAuth is not supported",
	"oauth_client_id":          "leave it out: OAuth is not supported",
	"oauth_client_secret":      "leave it out: OAuth is not supported",
	"oauth_scope":              "leave it out: OAuth is not supported",
}

// foreign refuses parameters that neither the driver nor Postgres knows, and leaves out those that
// change nothing.
func foreign(given map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		lower := strings.ToLower(name)
		if owner := keyOf(foreigners, lower); owner != "" {
			help := "leave it out"
			if other := keyOf(instead, lower); other != "" {
				help += "; " + other
			}
			return fmt.Errorf("has a parameter %q, which belongs to %s and not to Postgres: %s", name, owner, help)
		}
		if help := refusedOfLibpq[lower]; help != "" {
			return fmt.Errorf("has a parameter %q of libpq, which walpost does not support: %s", name, help)
		}
		if slices.Contains(harmless, lower) || lower == "gssencmode" && given[name] != "require" {
			delete(given, name)
		} else if lower == "gssencmode" {
			return fmt.Errorf("has a parameter %q that asks for GSS encryption, which walpost does not support: "+
				"use TLS (sslmode)", name)
		}
	}
	return nil
}
