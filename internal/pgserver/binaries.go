package pgserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Binaries are a directory that holds initdb and postgres of one version.
type Binaries struct {
	Dir     string // of the programs
	Major   int
	Version string // such as "18.6"
	Source  string // where they come from, for people: "local", "cache", "maven", "embedded-postgres"
}

// minor is the second number of the version; releases of Postgres have no third.
func (b Binaries) minor() int {
	_, text, _ := strings.Cut(b.Version, ".")
	number, err := strconv.Atoi(text)
	if err != nil {
		return 0 // a beta, such as "19beta1"
	}
	return number
}

func (b Binaries) path(program string) string { return filepath.Join(b.Dir, program) }

// Find returns the binaries of a major version, or of any for 0: a Postgres of this machine, else
// one from the cache, else one fetched into the cache. progress is told what is being fetched and
// may be nil.
func Find(ctx context.Context, major int, progress func(string)) (Binaries, error) {
	opts := Options{Major: major, Progress: progress}
	if err := opts.validate(); err != nil {
		return Binaries{}, err
	}
	acct, err := unprivileged()
	if err != nil {
		return Binaries{}, err
	}
	return find(ctx, opts, acct)
}

func find(ctx context.Context, opts Options, acct *account) (Binaries, error) {
	if b, ok := best(ctx, localDirs(ctx), opts.Major, acct); ok {
		b.Source = "local"
		return b, nil
	}
	cache, err := cacheDir(acct)
	if err != nil {
		return Binaries{}, err
	}
	if b, ok := best(ctx, cachedDirs(cache), opts.Major, acct); ok {
		b.Source = "cache"
		return b, nil
	}

	major := opts.Major
	if major == 0 {
		major = NewestMajor
	}
	var errs []error
	// Looking fails as well when ctx has ended: that is no reason to fetch.
	if err := ctx.Err(); err != nil {
		return Binaries{}, fmt.Errorf("find postgres %d: %w", major, err)
	}
	for _, way := range []struct {
		name  string
		fetch func(ctx context.Context, opts Options, cache string, major int) (string, error)
	}{{"maven", fetchMaven}, {"embedded-postgres", fetchEmbedded}} {
		dir, err := way.fetch(ctx, opts, cache, major)
		if err == nil {
			if b, ok := best(ctx, []string{dir}, major, acct); ok {
				b.Source = way.name
				return b, nil
			}
			err = fmt.Errorf("run the fetched postgres in %s: it does not start on this machine", dir)
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return Binaries{}, fmt.Errorf("find postgres %d: %w; install PostgreSQL %d with initdb, or Maven and Java to fetch it",
		major, errors.Join(errs...), major)
}

// localDirs are the places where the Postgres of the machine may be.
func localDirs(ctx context.Context) []string {
	var dirs []string
	if output, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(output)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
	} {
		if found, err := filepath.Glob(pattern); err == nil {
			dirs = append(dirs, found...)
		}
	}
	return dirs
}

// best returns the newest binaries among the directories that are of the major version (0: of a
// supported one) and that the account may run.
func best(ctx context.Context, dirs []string, major int, acct *account) (Binaries, bool) {
	var found []Binaries
	for _, dir := range dirs {
		b, err := inspect(ctx, dir)
		wanted := b.Major == major || major == 0 && b.Major >= OldestMajor && b.Major <= NewestMajor
		if err == nil && wanted && acct.reaches(b.path("postgres")) {
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		return Binaries{}, false
	}
	return slices.MaxFunc(found, func(a, b Binaries) int { return cmp.Or(a.Major-b.Major, a.minor()-b.minor()) }), true
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d+)[.\d]*)`)

// inspect asks the server program for its version. Client packages bring pg_config without a
// server, so both programs must be there.
func inspect(ctx context.Context, dir string) (Binaries, error) {
	b := Binaries{Dir: dir}
	if _, err := os.Stat(b.path("initdb")); err != nil {
		return b, fmt.Errorf("look for initdb: %w", err)
	}
	output, err := exec.CommandContext(ctx, b.path("postgres"), "--version").Output()
	if err != nil {
		return b, fmt.Errorf("ask postgres for its version: %w", err)
	}
	match := versionPattern.FindSubmatch(output)
	if match == nil {
		return b, fmt.Errorf("read version of %s: %q is not one", b.path("postgres"), output)
	}
	b.Version = string(match[1])
	if b.Major, err = strconv.Atoi(string(match[2])); err != nil {
		return b, fmt.Errorf("read version of postgres: %w", err)
	}
	return b, nil
}
