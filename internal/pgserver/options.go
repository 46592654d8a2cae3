package pgserver

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Oldest and newest major version that Start accepts.
const (
	OldestMajor = 14
	NewestMajor = 18
)

// Options say which Postgres to run and where. The zero value runs any supported version that is
// easy to get.
type Options struct {
	// Major is the major version; 0 takes any, one that is installed before one that must be
	// fetched.
	Major int
	// Dir holds the data directory. Empty: Start makes one under os.TempDir, and Close removes it.
	// If Dir holds a data directory already, Start uses it as it is.
	Dir string
	// Port is the TCP port on 127.0.0.1; 0 takes a free one.
	Port int
	// Settings are written to the configuration of the server and win over the defaults for logical
	// replication.
	Settings map[string]string
	// Env is added to the environment of the server.
	Env []string
	// Progress is called with one sentence on what is being fetched; nil is silent.
	Progress func(string)
	// Log receives what the server prints; nil writes it to server.log in Dir. It is not closed.
	Log io.Writer
}

func (o Options) progress(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

func (o Options) validate() error {
	if o.Major != 0 && (o.Major < OldestMajor || o.Major > NewestMajor) {
		return fmt.Errorf("choose postgres version: major %d is not between %d and %d",
			o.Major, OldestMajor, NewestMajor)
	}
	return nil
}

// configuration renders the settings file. The defaults suit logical replication on one machine.
// There is no Unix socket: its directory would have to be writable for the account of the server,
// and its path short.
func (o Options) configuration(port int) string {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"wal_level":               "logical",
		"max_replication_slots":   "20",
		"max_wal_senders":         "20",
		"max_connections":         "100",
		"log_min_messages":        "warning",
		"log_line_prefix":         "%m [%p] ",
	}
	maps.Copy(settings, o.Settings)
	settings["port"] = fmt.Sprint(port)

	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	return b.String()
}
