package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// TestContradictions: flags that cannot both be meant are usage errors, and nothing is printed or
// started.
func TestContradictions(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"init --print --accept-gap": "--accept-gap: cannot be used with --print",
		"init --print --accept-gap --kafka-brokers=localhost:1 --postgres-url=postgres://": "--accept-gap: cannot be used with --print",
		"demo --postgres-url=postgres://localhost/x --postgres-major=17":                   "--postgres-major: has no effect with --postgres-url",
		"demo --rate -1":       "--rate: -1 must be more than 0",
		"demo --rate=0":        "--rate: 0 must be more than 0",
		"demo --rate=NaN":      "--rate: NaN must be more than 0",
		"demo --partitions -2": "--partitions: -2 is not between",
		"demo --duration -1s":  "--duration: -1s is negative",
		"demo --duration=1e":   "--duration: ",
	} {
		var out, faults bytes.Buffer
		code := run(t.Context(), strings.Fields(args), &out, &faults)
		if code != exitUsage || !strings.Contains(faults.String(), want) || out.Len() > 0 {
			t.Errorf("%s ended with %d, printed %q, and said %q; want %q", args, code, out.String(), faults.String(), want)
		}
	}
}

func TestVersionFlag(t *testing.T) {
	t.Parallel()
	said := map[string]bool{}
	for _, args := range [][]string{{"version"}, {"--version"}, {"run", "--version"}} {
		var out bytes.Buffer
		if code := run(t.Context(), args, &out, io.Discard); code != exitOK {
			t.Errorf("%q ended with %d", args, code)
		}
		said[out.String()] = true
	}
	if len(said) != 1 || !said[versionLine()+"\n"] {
		t.Errorf("got %v", said)
	}
}
