package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// embeddedVersions are the releases that the library fetches over HTTPS, without Maven.
var embeddedVersions = map[int]embeddedpostgres.PostgresVersion{
	14: embeddedpostgres.V14, 15: embeddedpostgres.V15, 16: embeddedpostgres.V16,
	17: embeddedpostgres.V17, 18: embeddedpostgres.V18,
}

// fetchEmbedded is the last resort: the library downloads and unpacks the programs, and this
// package runs them. The library does that only as a part of starting a server, which then fails if
// this process is root. So what counts is that the programs exist, not whether its server started.
func fetchEmbedded(_ context.Context, opts Options, cache string, major int) (string, error) {
	version, ok := embeddedVersions[major]
	if !ok {
		return "", fmt.Errorf("fetch postgres %d: the embedded-postgres library does not know it", major)
	}
	opts.progress("downloading PostgreSQL %s (about 15 MB, once)", version)

	dir, err := Install(cache, "postgres-"+string(version), func(dir string) error {
		scratch, err := os.MkdirTemp("", "walpost-embedded-")
		if err != nil {
			return fmt.Errorf("create download directory: %w", err)
		}
		defer func() { _ = os.RemoveAll(scratch) }()
		port, err := FreePort()
		if err != nil {
			return err
		}
		library := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
			Version(version).Port(uint32(port)).Logger(io.Discard).
			CachePath(filepath.Join(scratch, "cache")).RuntimePath(filepath.Join(scratch, "run")).BinariesPath(dir))
		before := embeddedLogs()
		startErr := library.Start()
		defer func() { // the library never removes its log
			for log := range embeddedLogs() {
				if !before[log] {
					_ = os.Remove(log)
				}
			}
		}()
		http.DefaultClient.CloseIdleConnections() // the library uses it and leaves connections open
		if startErr == nil {
			if err := library.Stop(); err != nil {
				return fmt.Errorf("stop the server that the embedded-postgres library started: %w", err)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, "bin", "postgres")); err != nil {
			return fmt.Errorf("download postgres %s: %w", version, errors.Join(startErr, err))
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "bin"), nil
}

// embeddedLogs returns the logs of the library in the directory for temporary files.
func embeddedLogs() map[string]bool {
	logs := map[string]bool{}
	// The pattern is valid, and in a directory that we cannot read there is nothing to remove.
	found, _ := filepath.Glob(filepath.Join(os.TempDir(), "embedded_postgres_log*"))
	for _, log := range found {
		logs[log] = true
	}
	return logs
}
