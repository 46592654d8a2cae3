package pgserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// CacheDir is where fetched programs are kept: WALPOST_CACHE if that is set, else the user's cache
// directory. For root it is one that the account of the server can enter, which a home directory of
// root usually is not.
func CacheDir() (string, error) {
	acct, err := unprivileged()
	if err != nil {
		return "", err
	}
	return cacheDir(acct)
}

func cacheDir(acct *account) (string, error) {
	if dir := os.Getenv("WALPOST_CACHE"); dir != "" {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return "", fmt.Errorf("resolve WALPOST_CACHE: %w", err)
		}
		return makeCache(dir, acct)
	}
	var candidates []string
	if dir, err := os.UserCacheDir(); err == nil {
		candidates = append(candidates, filepath.Join(dir, "walpost"))
	}
	if acct != nil {
		candidates = append(candidates, "/var/cache/walpost")
	}
	candidates = append(candidates, filepath.Join(os.TempDir(), fmt.Sprintf("walpost-cache-%d", os.Getuid())))

	var errs []error
	for _, dir := range candidates {
		made, err := makeCache(dir, acct)
		if err == nil {
			return made, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// makeCache creates the directory. What lies in it will be executed, so one that somebody else but
// root made is refused.
func makeCache(dir string, acct *account) (string, error) {
	if !acct.reaches(filepath.Join(dir, "postgres")) {
		return "", fmt.Errorf("use cache %s: the unprivileged account that runs postgres cannot enter it", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("create cache: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("create cache: %w", err)
	}
	self, root := &account{uid: os.Geteuid()}, &account{}
	if !info.IsDir() || !self.owns(info) && !root.owns(info) {
		return "", fmt.Errorf("use cache %s: it belongs to somebody else", dir)
	}
	return dir, nil
}

func cachedDirs(cache string) []string {
	dirs, err := filepath.Glob(filepath.Join(cache, "postgres-*", "bin"))
	if err != nil {
		return nil
	}
	return dirs
}

// Install fills a directory of the cache in one step: fill writes into a new directory beside it,
// which then takes the final name. A fill that is interrupted leaves only a temporary directory
// behind, which the next one does not use, and of two at once the first wins.
func Install(cache, name string, fill func(dir string) error) (string, error) {
	target := filepath.Join(cache, name)
	tmp, err := os.MkdirTemp(cache, ".partial-")
	if err != nil {
		return "", fmt.Errorf("create directory in cache: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", fmt.Errorf("open directory in cache to readers: %w", err)
	}
	if err := fill(tmp); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, target); err != nil {
		if _, statErr := os.Stat(target); statErr != nil {
			return "", fmt.Errorf("move into cache: %w", err)
		}
	}
	return target, nil
}
