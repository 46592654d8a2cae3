package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/walpost/walpost/integration/servers"
)

// Binary builds the relay once for all tests, or takes the one that WALPOST_TEST_BINARY names.
// WALPOST_TEST_RACE=1 builds it with the race detector.
var Binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("WALPOST_TEST_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	dir, err := BinaryDir()
	if err != nil {
		return "", err
	}
	return Build(filepath.Join(dir, "walpost"))
})

// BinaryDir is a directory for what the tests build. servers.Close removes it.
var BinaryDir = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "walpost-binary-")
	if err != nil {
		return "", fmt.Errorf("create directory for the binary: %w", err)
	}
	servers.AtEnd(func() error { return os.RemoveAll(dir) })
	return dir, os.Chmod(dir, 0o755) // the account of Postgres loads a library from it
})

// Build builds the relay at path.
func Build(path string, flags ...string) (string, error) {
	module, err := GoEnv("GOMOD")
	if err != nil {
		return "", err
	}
	if module == os.DevNull {
		return "", errors.New("find module: the tests run outside of it")
	}
	args := append([]string{"build", fmt.Sprintf("-race=%t", RaceBuilt()), "-o", path}, flags...)
	command := exec.Command("go", append(args, "./cmd/walpost")...)
	command.Dir = filepath.Dir(module)
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the relay: %w: %s", err, output)
	}
	return path, nil
}

// RaceBuilt reports whether the relay is built with the race detector. It then
// uses several processors, to meet as many races as it can.
func RaceBuilt() bool { return os.Getenv("WALPOST_TEST_RACE") == "1" }

// GoEnv asks go for a variable of its environment.
func GoEnv(name string) (string, error) {
	output, err := exec.Command("go", "env", name).Output()
	value := strings.TrimSpace(string(output))
	if err != nil || value == "" {
		return "", fmt.Errorf("ask go for %s: %w", name, errors.Join(err))
	}
	return value, nil
}
