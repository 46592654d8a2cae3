package main

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// The names are those of flags: a wrong one would hide nothing.
func TestHelpListsWhatACommandUses(t *testing.T) {
	t.Parallel()
	flags := func(command string) map[string]bool {
		var out bytes.Buffer
		if code := run(t.Context(), []string{command, "--help"}, &out, io.Discard); code != exitOK {
			t.Fatalf("%s --help ended with %d", command, code)
		}
		found := map[string]bool{}
		for _, flag := range regexp.MustCompile(`(?m)^ +(?:-h, )?--([a-z-]+)`).FindAllStringSubmatch(out.String(), -1) {
			found[flag[1]] = true
		}
		return found
	}
	all := flags("run")
	for command, unused := range map[string][]string{
		"init": (&initCommand{}).UnusedSettings(), "status": (&statusCommand{}).UnusedSettings(),
	} {
		listed := flags(command)
		for flag := range all {
			if listed[flag] == slices.Contains(unused, flag) {
				t.Errorf("%s --help lists --%s: %t", command, flag, listed[flag])
			}
		}
		for _, flag := range unused {
			if !all[flag] {
				t.Errorf("%s: --%s is no flag of run", command, flag)
			}
		}
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		after []time.Duration // from the first signal to each further one
		ends  bool
	}{
		{"one", nil, false},
		{"the same one twice", []time.Duration{0}, false},
		{"from the group and from a supervisor", []time.Duration{time.Microsecond, oneStop - time.Millisecond}, false},
		{"a second one", []time.Duration{oneStop}, true},
		{"twice, and a second one", []time.Duration{time.Microsecond, time.Second}, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			signals := make(chan os.Signal, 2)
			told, ended := 0, false
			go func() {
				awaitSecond(signals, func() { told++ })
				ended = true
			}()
			signals <- syscall.SIGTERM
			began := time.Now()
			for _, after := range test.after {
				time.Sleep(after - time.Since(began))
				signals <- syscall.SIGTERM
			}
			synctest.Wait()
			if told != 1 || ended != test.ends {
				t.Errorf("%s: told of the first %d times, ended at once: %t", test.name, told, ended)
			}
			close(signals) // for the goroutine
		})
	}
}
