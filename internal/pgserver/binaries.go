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

// installation is a directory that holds initdb and postgres of one version.
type installation struct {
	dir     string // of the programs
	major   int
	version string // such as "18.6"
}

// minor is the second number of the version; releases of Postgres have no third.
func (i installation) minor() int {
	_, text, _ := strings.Cut(i.version, ".")
	number, err := strconv.Atoi(text)
	if err != nil {
		return 0 // a beta, such as "19beta1"
	}
	return number
}

func (i installation) path(program string) string { return filepath.Join(i.dir, program) }

// find returns the newest installation of the major version, or of any for 0: a Postgres of this
// machine, else one from the cache, else one fetched into the cache.
func find(ctx context.Context, opts Options, acct *account) (installation, error) {
	if found, ok := best(ctx, localDirs(ctx), opts.Major, acct); ok {
		return found, nil
	}
	cache, err := cacheDir(acct)
	if err != nil {
		return installation{}, err
	}
	if found, ok := best(ctx, cachedDirs(cache), opts.Major, acct); ok {
		return found, nil
	}

	major := opts.Major
	if major == 0 {
		major = NewestMajor
	}
	// The search also fails when ctx has ended, which is no reason to fetch.
	if err := ctx.Err(); err != nil {
		return installation{}, fmt.Errorf("find postgres %d: %w", major, err)
	}
	var errs []error
	for _, fetch := range []func(context.Context, Options, string, int) (string, error){fetchMaven, fetchEmbedded} {
		dir, err := fetch(ctx, opts, cache, major)
		if err == nil {
			if found, ok := best(ctx, []string{dir}, major, acct); ok {
				return found, nil
			}
			err = fmt.Errorf("run the fetched postgres in %s: it does not start on this machine", dir)
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return installation{}, fmt.Errorf("find postgres %d: %w; "+
		"install PostgreSQL %[1]d with initdb, or Maven and Java to fetch it", major, errors.Join(errs...))
}

// localDirs lists where a Postgres of this machine may be.
func localDirs(ctx context.Context) []string {
	var dirs []string
	if output, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(output)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
	} {
		if found, err := filepath.Glob(pattern); err == nil {
			dirs = append(dirs, found...)
		}
	}
	return dirs
}

// best returns the newest binaries among the directories that are of the major version (0: of a
// supported one) and that the account may run.
func best(ctx context.Context, dirs []string, major int, acct *account) (installation, bool) {
	var found []installation
	for _, dir := range dirs {
		i, err := inspect(ctx, dir)
		wanted := i.major == major || major == 0 && i.major >= OldestMajor && i.major <= NewestMajor
		if err == nil && wanted && acct.reaches(i.path("postgres")) {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return installation{}, false
	}
	return slices.MaxFunc(found, func(a, b installation) int {
		return cmp.Or(a.major-b.major, a.minor()-b.minor())
	}), true
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d+)[.\d]*)`)

// inspect asks the server program for its version. Client packages bring pg_config without a
// server, so both programs must be there.
func inspect(ctx context.Context, dir string) (installation, error) {
	i := installation{dir: dir}
	if _, err := os.Stat(i.path("initdb")); err != nil {
		return i, fmt.Errorf("look for initdb: %w", err)
	}
	output, err := exec.CommandContext(ctx, i.path("postgres"), "--version").Output()
	if err != nil {
		return i, fmt.Errorf("ask postgres for its version: %w", err)
	}
	match := versionPattern.FindSubmatch(output)
	if match == nil {
		return i, fmt.Errorf("read version of %s: %q is not one", i.path("postgres"), output)
	}
	i.version = string(match[1])
	if i.major, err = strconv.Atoi(string(match[2])); err != nil {
		return i, fmt.Errorf("read version of postgres: %w", err)
	}
	return i, nil
}
