package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// relayBinary builds the relay once for all tests, or takes the one that WALPOST_TEST_BINARY names. WALPOST_TEST_RACE=1
// builds it with the race detector.
var relayBinary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("WALPOST_TEST_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	dir, err := binaryDir()
	if err != nil {
		return "", err
	}
	return build(filepath.Join(dir, "walpost"))
})

// binaryDir is a directory for what the tests build. It ends with them.
var binaryDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "walpost-binary-")
	if err != nil {
		return "", fmt.Errorf("create directory for the binary: %w", err)
	}
	servers.mu.Lock()
	defer servers.mu.Unlock()
	servers.closers = append(servers.closers, func() error { return os.RemoveAll(dir) })
	return dir, os.Chmod(dir, 0o755) // the account of Postgres loads a library from it
})

// build builds the relay at path.
func build(path string, flags ...string) (string, error) {
	module, err := goEnv("GOMOD")
	if err != nil {
		return "", err
	}
	if module == os.DevNull {
		return "", errors.New("find module: the tests run outside of it")
	}
	args := append([]string{"build", fmt.Sprintf("-race=%t", raceBuilt()), "-o", path}, flags...)
	command := exec.Command("go", append(args, "./cmd/walpost")...)
	command.Dir = filepath.Dir(module)
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the relay: %w: %s", err, output)
	}
	return path, nil
}

// raceBuilt reports whether the relay is built with the race detector. It uses several processors then, to meet as much as it can.
func raceBuilt() bool { return os.Getenv("WALPOST_TEST_RACE") == "1" }

func goEnv(name string) (string, error) {
	output, err := exec.Command("go", "env", name).Output()
	value := strings.TrimSpace(string(output))
	if err != nil || value == "" {
		return "", fmt.Errorf("ask go for %s: %w", name, errors.Join(err))
	}
	return value, nil
}
