package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// busyTime is how long the threads of a process have run so far, by the scheduler's count. It is
// zero for a process that is gone.
func busyTime(pid int) time.Duration {
	var sum int64
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, task := range tasks {
		content, err := os.ReadFile(filepath.Clean(task))
		if err != nil {
			continue // a thread that has ended meanwhile
		}
		first, _, _ := strings.Cut(string(content), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err == nil {
			sum += ns
		}
	}
	return time.Duration(sum)
}

// wakeups watches for how many moments, of 50 ms each, a process runs at all: what it does at once
// counts as one, however many threads take part.
func wakeups(pid int, watch time.Duration) int {
	const moment = 50 * time.Millisecond
	count, last := 0, busyTime(pid)
	for range watch / moment {
		time.Sleep(moment)
		if now := busyTime(pid); now != last {
			count, last = count+1, now
		}
	}
	return count
}

// memoryMiB is the memory that a process has resident: VmRSS now, VmHWM at most.
func memoryMiB(pid int, which string) float64 {
	return float64(statusValue(fmt.Sprintf("/proc/%d/status", pid), which+":")) / 1024
}

func statusValue(file, name string) int {
	content, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(content)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// machineTime is what the processors did since the machine started, all of them together.
type machineTime struct{ all, idle, stolen time.Duration }

func readMachineTime() machineTime {
	content, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(content), "\n")
	var m machineTime
	for i, field := range strings.Fields(strings.TrimPrefix(line, "cpu")) {
		ticks, _ := strconv.ParseInt(field, 10, 64)
		d := time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 everywhere
		switch {
		case i == 3 || i == 4: // idle, iowait
			m.idle += d
		case i == 7:
			m.stolen += d
		case i > 7: // guests are counted before
			continue
		}
		m.all += d
	}
	return m
}

// since returns which share of the machine was busy, and which its host took away, since then.
func (m machineTime) since(then machineTime) (busy, stolen float64) {
	all := max(m.all-then.all, 1)
	return 1 - float64(m.idle-then.idle)/float64(all), float64(m.stolen-then.stolen) / float64(all)
}

// settle waits until servers that were just started have nothing more to do.
func settle() { time.Sleep(5 * time.Second) }

// quiet watches the machine for a moment in which the benchmark does nothing.
func quiet() (busy float64) {
	before := readMachineTime()
	time.Sleep(700 * time.Millisecond)
	busy, _ = readMachineTime().since(before)
	return busy
}
