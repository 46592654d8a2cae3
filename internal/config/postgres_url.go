package config

import (
	"net/url"
	"strings"
)

func isURL(given string) bool {
	return strings.HasPrefix(given, "postgres://") || strings.HasPrefix(given, "postgresql://")
}

// splitURL cuts a URL as the driver and libpq do, which is not as net/url does: a password may hold
// ? and #, and a list of hosts is no host. The path begins with its slash.
func splitURL(given string) (userinfo, hosts, path, query string) {
	_, rest, _ := strings.Cut(given, "://")
	if at := strings.IndexAny(rest, "@/"); at >= 0 && rest[at] == '@' {
		userinfo, rest = rest[:at], rest[at+1:]
	}
	rest, query, _ = strings.Cut(rest, "?")
	if slash := strings.IndexByte(rest, '/'); slash >= 0 {
		return userinfo, rest[:slash], rest[slash:], query
	}
	return userinfo, rest, "", query
}

// queryValue returns the value of a parameter of a URL. Of two of one name the last counts.
func queryValue(given, name string) (value string, found bool) {
	_, _, _, query := splitURL(given)
	for pair := range strings.SplitSeq(query, "&") {
		key, val, _ := strings.Cut(pair, "=")
		if decoded(key) == name {
			value, found = decoded(val), true
		}
	}
	return value, found
}

// decoded is a part of a URL with its percent signs resolved; one that cannot be read stays as it
// is.
func decoded(part string) string {
	part = strings.Trim(part, " ")
	if plain, err := url.PathUnescape(part); err == nil {
		return plain
	}
	return part
}

// with adds a parameter. Of two of one name the last counts.
func with(given, name, value string) string {
	if !isURL(given) {
		return given + " " + name + "=" + value
	}
	_, _, _, query := splitURL(given)
	switch {
	case query != "":
		return given + "&" + name + "=" + value
	case strings.HasSuffix(given, "?"):
		return given + name + "=" + value
	}
	return given + "?" + name + "=" + value
}
