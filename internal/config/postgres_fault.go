package config

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// driverFault says what the driver cannot use, and in which part of the text. The driver's own
// messages repeat the text, and with it a password.
func driverFault(given string, err *pgconn.ParseConfigError) error {
	reason := err.Error()
	if at := strings.LastIndex(reason, "`: "); at >= 0 {
		reason = reason[at+len("`: "):]
	}
	reason, _, _ = strings.Cut(reason, " (")
	switch inner := errors.Unwrap(err); {
	case reason == "failed to parse as URL":
		return urlFault(given)
	case reason == "failed to parse as keyword/value":
		return keywordFault(given)
	case reason == "invalid port":
		return portFault(given)
	case inner != nil && (reason == "failed to configure TLS" || reason == "failed to read service"):
		return fmt.Errorf("cannot be used: %s: %w", reason, inner)
	}
	return errors.New("cannot be used: " + reason)
}

// urlPart is a part of a URL that is decoded by itself.
type urlPart struct{ name, text string }

// urlFault names the part of a URL that the driver cannot read.
func urlFault(given string) error {
	userinfo, hosts, path, query := splitURL(given)
	user, password, _ := strings.Cut(userinfo, ":")
	parts := []urlPart{{"user", user}, {"password", password}, {"host", hosts}, {"database", path}}
	for pair := range strings.SplitSeq(query, "&") {
		name, value, found := strings.Cut(pair, "=")
		ofName := "value of a parameter"
		if settingName.MatchString(name) { // another one may be a piece of a password
			ofName = fmt.Sprintf("value of parameter %q", name)
		}
		parts = append(parts, urlPart{"name of a parameter", name}, urlPart{ofName, value})
		switch {
		case !found && query != "":
			return errors.New("has a parameter without a value: & separates parameters, and = follows a name")
		case strings.Contains(value, "="):
			return fmt.Errorf("has an = in the %s: write %%3D", ofName)
		}
	}
	for _, part := range parts {
		what, instead := escapeFault(part.text)
		switch {
		case what == "":
		case part.name == "password":
			return fmt.Errorf("has %s in the password: write %s, or give the password in PGPASSWORD or a password file",
				what, instead)
		default:
			return fmt.Errorf("has %s in the %s: write %s", what, part.name, instead)
		}
	}
	if strings.Contains(hosts, "[") {
		return errors.New("has an IPv6 address that is not written as [::1] or [::1]:5432")
	}
	return errors.New("is not a Postgres URL: it must be postgres://user@host/database")
}

// escapeFault finds what the driver does not take in a part of a URL.
func escapeFault(part string) (what, instead string) {
	part = strings.Trim(part, " ")
	_, err := url.PathUnescape(part)
	switch {
	case err != nil:
		return "a % that no two hexadecimal digits follow", "%25"
	case strings.Contains(part, " "):
		return "a space", "%20"
	case strings.Contains(part, "%00") || strings.ContainsRune(part, 0):
		return "a zero byte", "it without"
	}
	return "", ""
}

// keywordFault says what is wrong with a list of keywords.
func keywordFault(given string) error {
	if strings.Count(strings.ReplaceAll(given, `\'`, ""), "'")%2 != 0 {
		return errors.New("has a quotation mark that is not closed: write ' as \\' in a value")
	}
	return errors.New("has a keyword without a value: it must be host=... dbname=... user=..., " +
		"with a value that has spaces in single quotes")
}

var keywordPort = regexp.MustCompile(`(^|\s)port\s*=`)

// portFault names the host of a URL whose port is none.
func portFault(given string) error {
	const none = "is not between 1 and 65535"
	if isURL(given) {
		_, hosts, _, _ := splitURL(given)
		for host := range strings.SplitSeq(hosts, ",") {
			at := strings.LastIndexByte(host, ':')
			if at < 0 || strings.HasSuffix(host, "]") {
				continue
			}
			text := decoded(host[at+1:])
			if port, err := strconv.ParseUint(text, 10, 16); text != "" && (err != nil || port == 0) {
				return fmt.Errorf("has a port that %s, after host %q", none, host[:at])
			}
		}
	}
	if _, found := queryValue(given, "port"); found && isURL(given) || keywordPort.MatchString(given) {
		return fmt.Errorf("has a port that %s", none)
	}
	return fmt.Errorf("gets a port from PGPORT or the service file that %s", none)
}
