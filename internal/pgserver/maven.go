package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// pinned are exact versions of io.zonky.test.postgres:embedded-postgres-binaries-linux-*, about 15
// MB each. A range would make two machines test two different servers.
var pinned = map[string]map[int]string{
	"amd64": {14: "14.24.0", 15: "15.19.0", 16: "16.15.0", 17: "17.11.0", 18: "18.6.0"},
	"arm64": {14: "14.23.0", 15: "15.19.0", 16: "16.15.0", 17: "17.11.0", 18: "18.4.0"},
}

// platforms are the names that the artifacts use.
var platforms = map[string]string{"amd64": "amd64", "arm64": "arm64v8"}

// fetchMaven fetches the binaries of a major version into the cache and returns the directory of
// the programs.
func fetchMaven(ctx context.Context, opts Options, cache string, major int) (string, error) {
	version, ok := pinned[runtime.GOARCH][major]
	if runtime.GOOS != "linux" || !ok {
		return "", fmt.Errorf("fetch postgres %d with Maven: no version is pinned for %s/%s",
			major, runtime.GOOS, runtime.GOARCH)
	}
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return "", fmt.Errorf("fetch postgres %d with Maven: %w", major, err)
	}
	opts.progress("fetching PostgreSQL %s with Maven (about 15 MB, once)", version)
	artifact := fmt.Sprintf("embedded-postgres-binaries-linux-%s", platforms[runtime.GOARCH])

	dir, err := Install(cache, "postgres-"+version, func(dir string) error {
		jars, err := os.MkdirTemp("", "walpost-maven-")
		if err != nil {
			return fmt.Errorf("create download directory: %w", err)
		}
		defer func() { _ = os.RemoveAll(jars) }()
		cmd := exec.CommandContext(ctx, mvn, "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
			"-Dartifact=io.zonky.test.postgres:"+artifact+":"+version, "-DoutputDirectory="+jars)
		cmd.Dir = jars
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("fetch postgres %s with Maven: %w: %s", version, err, output)
		}
		return unpackJar(filepath.Join(jars, artifact+"-"+version+".jar"), dir)
	})
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "bin")
	if _, err := os.Stat(filepath.Join(bin, "postgres")); err != nil {
		return "", errors.Join(fmt.Errorf("look for postgres %s in the cache: %w", version, err), os.RemoveAll(dir))
	}
	return bin, nil
}
