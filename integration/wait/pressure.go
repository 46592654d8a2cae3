package wait

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// pressure is for how long, since the machine was started, some program had to wait for a
// processor, a disk or memory; 0 where the kernel does not tell.
func pressure() time.Duration {
	sum := time.Duration(0)
	for _, resource := range []string{"cpu", "io", "memory"} {
		text, err := os.ReadFile("/proc/pressure/" + resource)
		if err == nil {
			sum += someTotal(string(text))
		}
	}
	return sum
}

// someTotal reads the first line: "some avg10=0.00 avg60=0.00 avg300=0.00 total=157656722", in
// microseconds.
func someTotal(text string) time.Duration {
	line, _, _ := strings.Cut(text, "\n")
	_, total, _ := strings.Cut(line, "total=")
	micros, err := strconv.ParseInt(total, 10, 64)
	if err != nil || !strings.HasPrefix(line, "some ") {
		return 0
	}
	return time.Duration(micros) * time.Microsecond
}
