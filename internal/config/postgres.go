package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var (
	keywordPassword = regexp.MustCompile(`(?i)(^|\s)(ssl)?password\s*=`)
	keywordPassfile = regexp.MustCompile(`(^|\s)passfile\s*=\s*'?([^'\s]+)`)
	keywordSSLMode  = regexp.MustCompile(`(^|\s)sslmode\s*=`)
)

// PostgresConfig is what a plain protocol connection needs. It is the caller's own copy.
func (c *Config) PostgresConfig() (*pgconn.Config, error) {
	config, err := c.PostgresConnConfig()
	if err != nil {
		return nil, err
	}
	return &config.Config, nil
}

// PostgresConnConfig is what a pgx connection needs. Where the URL is silent, PG* variables and the
// password file are asked. If neither names an sslmode and a host is not this machine, the server's
// certificate is verified in full: the password and every row of the outbox travel on this
// connection, and the default of libpq would fall back to plain text. Errors do not repeat the URL.
func (c *Config) PostgresConnConfig() (*pgx.ConnConfig, error) {
	config, err := parsePostgres(c.PostgresURL)
	if err != nil {
		return nil, err
	}
	if !namesSSLMode(c.PostgresURL) && !onlyLocal(&config.Config) {
		config, err = parsePostgres(with(c.PostgresURL, "sslmode", "verify-full"))
		if err != nil {
			return nil, err
		}
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "walpost"
	}
	return config, nil
}

// PostgresLogin says where the password comes from, as far as a file or a variable has one; it
// never says the password.
func (c *Config) PostgresLogin() string {
	withPassfile, err := pgx.ParseConfig(c.PostgresURL)
	if err != nil || withPassfile.Password == "" {
		return "nowhere: password file " + c.passwordFile() + " is not there or has none for this host, " +
			"port, database " +
			"and user, and nothing else names one"
	}
	without, err := pgx.ParseConfig(with(c.PostgresURL, "passfile", os.DevNull))
	switch {
	case err == nil && without.Password == "":
		return "password file " + c.passwordFile()
	case holdsPassword(c.PostgresURL):
		return "the Postgres URL"
	case os.Getenv("PGPASSWORD") == without.Password:
		return "PGPASSWORD"
	}
	return "the service file"
}

// passwordFile is the one that is read where nothing else names a password.
func (c *Config) passwordFile() string {
	if !isURL(c.PostgresURL) {
		if found := keywordPassfile.FindStringSubmatch(c.PostgresURL); found != nil {
			return found[2]
		}
	} else if file, found := queryValue(c.PostgresURL, "passfile"); found {
		return file
	}
	if file := os.Getenv("PGPASSFILE"); file != "" {
		return file
	}
	return "~/.pgpass"
}

func parsePostgres(given string) (*pgx.ConnConfig, error) {
	if err := checkForm(given); err != nil {
		return nil, err
	}
	config, err := pgx.ParseConfig(given)
	var parseError *pgconn.ParseConfigError
	if errors.As(err, &parseError) {
		return nil, driverFault(given, parseError)
	}
	if err != nil {
		return nil, errNeither
	}
	return config, checkMeaning(given, &config.Config)
}

// parameters are those that the driver knows. It takes any other for a setting of the server.
var parameters = []string{
	"application_name", "channel_binding", "client_encoding", "connect_timeout", "database",
	"dbname", "host", "krbspn", "krbsrvname", "max_protocol_version", "min_protocol_version",
	"options", "passfile", "password", "port", "require_auth", "service", "servicefile", "sslcert",
	"sslcertmode", "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni",
	"target_session_attrs", "timezone", "user",
}

// ofServer are those of them that are settings of the server, whose names may be in any letters.
var ofServer = []string{"application_name", "client_encoding", "timezone"}

// misspelled names a parameter that is probably a known one in other letters: the server would
// refuse it at every start.
func misspelled(given map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(given)) {
		switch lower := strings.ToLower(name); {
		case slices.Contains(parameters, name) || slices.Contains(ofServer, lower):
			continue
		case slices.Contains(parameters, lower):
			return fmt.Errorf("has a parameter %q in the wrong case: write %s", name, lower)
		}
		if meant := closest(name, parameters); meant != "" {
			return fmt.Errorf("has a parameter %q, which is unknown (did you mean %s?)", name, meant)
		}
	}
	return nil
}

// holdsPassword tells whether the text itself carries a secret, wherever else a password may come
// from.
func holdsPassword(given string) bool {
	if !isURL(given) {
		return keywordPassword.MatchString(given)
	}
	userinfo, hosts, path, _ := splitURL(given)
	_, plain := queryValue(given, "password")
	_, ofKey := queryValue(given, "sslpassword")
	// An @ behind the user is of a password that holds a slash or an @ of its own.
	return plain || ofKey || strings.Contains(userinfo, ":") || strings.Contains(hosts+path, "@")
}

func namesSSLMode(given string) bool {
	if os.Getenv("PGSSLMODE") != "" {
		return true
	}
	if !isURL(given) {
		return keywordSSLMode.MatchString(given)
	}
	_, found := queryValue(given, "sslmode")
	return found
}

func onlyLocal(config *pgconn.Config) bool {
	if !localHost(config.Host) {
		return false
	}
	for _, fallback := range config.Fallbacks {
		if !localHost(fallback.Host) {
			return false
		}
	}
	return true
}

// localHost is true for this machine: a socket directory, localhost or a loopback address.
func localHost(host string) bool {
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
