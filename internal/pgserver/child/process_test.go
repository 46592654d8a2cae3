package child

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOutputAndState(t *testing.T) {
	t.Parallel()
	output := NewTail(nil, 1<<10)
	p, err := Start(Spec{
		Path: "/bin/sh", Args: []string{"-c", "echo $GREETING; exit 3"},
		Env: []string{"GREETING=hello"}, Output: output,
	})
	if err != nil {
		t.Fatal(err)
	}
	if code := p.State().ExitCode(); code != 3 {
		t.Errorf("exit code %d", code)
	}
	if output.String() != "hello\n" {
		t.Errorf("output %q", output)
	}
	p.Signal(os.Interrupt) // nothing there to signal
	p.Kill()
}

func TestKillReachesChildren(t *testing.T) {
	t.Parallel()
	output := NewTail(nil, 1<<10)
	// The grandchild holds the output open: Done before the end of WaitDelay shows that it is gone.
	p, err := Start(Spec{Path: "/bin/sh", Args: []string{"-c", "sleep 300 & wait"}, Env: os.Environ(), Output: output})
	if err != nil {
		t.Fatal(err)
	}
	for len(p.Children()) == 0 {
		select {
		case <-p.Done():
			t.Fatal("the shell ended")
		default:
		}
	}
	grandchild := p.Children()[0]
	p.Kill()
	if status := p.State().Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Errorf("ended by %v", status)
	}
	// It has closed its output, which is what Kill waits for; the kernel may need a moment more to
	// take it away.
	for deadline := time.Now().Add(30 * time.Second); ; runtime.Gosched() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", grandchild))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the grandchild lives: %s", stat)
		}
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	if _, err := Start(Spec{Path: "/does/not/exist"}); err == nil {
		t.Fatal("no error")
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	t.Parallel()
	var whole strings.Builder
	tail := NewTail(&whole, 10)
	for _, part := range []string{"abcdefgh", "ijkl", "mnopqrstuvwxyz", "0123"} {
		if _, err := tail.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if got := tail.String(); got != "uvwxyz0123" {
		t.Errorf("tail %q", got)
	}
	if got := whole.String(); got != "abcdefghijklmnopqrstuvwxyz0123" {
		t.Errorf("passed on %q", got)
	}
}
