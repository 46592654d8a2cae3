package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// residentMiB is the resident memory of a process.
func residentMiB(t testing.TB, pid int) int { return memoryMiB(t, pid, "VmRSS") }

// residentPeakMiB is the most that it ever was.
func residentPeakMiB(t testing.TB, pid int) int { return memoryMiB(t, pid, "VmHWM") }

func memoryMiB(t testing.TB, pid int, what string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib int
		if _, err := fmt.Sscanf(line, what+": %d kB", &kib); err == nil {
			return kib >> 10
		}
	}
	t.Fatalf("no %s", what)
	return 0
}
