package faults

import (
	_ "embed" // the sources of the clocks
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walpost/walpost/integration/process"
	"github.com/walpost/walpost/integration/servers"
)

// Clock is the wall clock of one program of a test, which can be stepped as an administrator or NTP
// would. Its monotonic clock goes on, as that of a machine does.
type Clock struct {
	file string
	Vars []string // of the environment of the program
}

// Clocks are those of the three programs.
type Clocks struct{ Postgres, Kafka, Relay *Clock }

// clockFile is the variable that names the file with a clock's step.
const clockFile = "TEST_CLOCK_STEP"

// NewClocks makes clocks that are right, until the test ends, or skips the test where none can be
// stepped.
func NewClocks(t testing.TB) *Clocks {
	t.Helper()
	library, err := clockLibrary()
	if err != nil {
		servers.Missing(t, err)
	}
	dir, err := os.MkdirTemp("", "walpost-clock-") // of the test's own folders, Postgres' account may enter none
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	clock := func(name string, vars ...string) *Clock {
		file := filepath.Join(dir, name)
		c := &Clock{file: file, Vars: append(vars, clockFile+"="+file)}
		c.Step(t, 0)
		return c
	}
	preload := "LD_PRELOAD=" + library
	return &Clocks{Postgres: clock("postgres", preload), Kafka: clock("kafka", preload), Relay: clock("relay")}
}

// Step sets the clock ahead of the machine's, in whole seconds, or behind it; 0 sets it right.
func (c *Clock) Step(t testing.TB, ahead time.Duration) {
	t.Helper()
	f, err := os.OpenFile(c.file, os.O_WRONLY|os.O_CREATE, 0o644)
	if err == nil {
		// In place: it is mapped.
		_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(ahead/time.Second))), 0)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatalf("step a clock: %v", err)
	}
}

var (
	//go:embed testdata/clock.c
	clockSource []byte
	//go:embed testdata/ahead.go
	aheadSource []byte
)

// clockLibrary builds what gives C programs such a clock.
var clockLibrary = sync.OnceValues(func() (string, error) {
	if runtime.GOOS != "linux" {
		return "", errors.New("clocks can be stepped on Linux only")
	}
	dir, err := process.BinaryDir()
	if err != nil {
		return "", err
	}
	path, source := filepath.Join(dir, "clock.so"), filepath.Join(dir, "clock.c")
	if err := os.WriteFile(source, clockSource, 0o600); err != nil {
		return "", fmt.Errorf("build a clock that can be stepped: %w", err)
	}
	if output, err := exec.Command("cc", "-shared", "-fPIC", "-O1", "-o", path, source).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build a clock that can be stepped: %w: %s", err, output)
	}
	return path, nil
})

// SteppedBinary builds the relay with a time.Now that reads such a clock: Go asks no library for
// the time.
var SteppedBinary = sync.OnceValues(func() (string, error) {
	dir, err := process.BinaryDir()
	if err != nil {
		return "", err
	}
	root, err := process.GoEnv("GOROOT")
	if err != nil {
		return "", err
	}
	added := filepath.Join(dir, "ahead.go")
	if err := os.WriteFile(added, aheadSource, 0o600); err != nil {
		return "", fmt.Errorf("step the relay's clock: %w", err)
	}
	source, changed := filepath.Join(root, "src", "time", "time.go"), filepath.Join(dir, "time.go")
	if err := stepTime(source, changed); err != nil {
		return "", fmt.Errorf("step the relay's clock: %w", err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{
		"Replace": {source: changed, filepath.Join(filepath.Dir(source), "ahead.go"): added},
	})
	if err != nil {
		return "", fmt.Errorf("step the relay's clock: %w", err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", fmt.Errorf("step the relay's clock: %w", err)
	}
	return process.Build(filepath.Join(dir, "walpost-clock"), "-overlay", list)
})

// stepTime writes Go's own time.go anew, with a time.Now that is ahead.
func stepTime(source, changed string) error {
	text, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	const read = "sec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(text), read) != 1 {
		return errors.New("time.Now of this Go is another one")
	}
	return os.WriteFile(changed, []byte(strings.Replace(string(text), read, read+"\tsec += ahead()\n", 1)), 0o600)
}
