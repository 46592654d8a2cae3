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
	output, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find module: %w", err)
	}
	module := strings.TrimSpace(string(output))
	if module == "" || module == os.DevNull {
		return "", errors.New("find module: the tests run outside of it")
	}
	dir, err := os.MkdirTemp("", "walpost-binary-")
	if err != nil {
		return "", fmt.Errorf("create directory for the binary: %w", err)
	}
	servers.mu.Lock()
	servers.closers = append(servers.closers, func() error { return os.RemoveAll(dir) })
	servers.mu.Unlock()

	path := filepath.Join(dir, "walpost")
	build := exec.Command("go", "build", fmt.Sprintf("-race=%t", os.Getenv("WALPOST_TEST_RACE") == "1"), "-o", path, "./cmd/walpost")
	build.Dir = filepath.Dir(module)
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the relay: %w: %s", err, output)
	}
	return path, nil
})
