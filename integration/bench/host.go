package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
)

// host gives the harness what it asks of a test, for one case of the benchmark: what the case
// started ends with it.
type host struct {
	testing.TB // nil: the harness calls nothing but the methods below
	name       string
	ctx        context.Context
	cleanups   []func()
	failed     bool
}

// errFailed is thrown by a failure, to end the case.
var errFailed = errors.New("failed")

// play runs a case and cleans up after it.
func (h *host) play(f func()) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	h.ctx = ctx
	defer func() {
		switch thrown := recover(); thrown {
		case nil:
		case errFailed:
			err = errFailed
		default:
			panic(thrown)
		}
		cancel()
		for _, cleanup := range slices.Backward(h.cleanups) {
			cleanup()
		}
		if h.failed {
			err = errFailed
		}
	}()
	f()
	return nil
}

func (h *host) Helper()                   {}
func (h *host) Name() string              { return h.name }
func (h *host) Context() context.Context  { return h.ctx }
func (h *host) Failed() bool              { return h.failed }
func (h *host) Cleanup(f func())          { h.cleanups = append(h.cleanups, f) }
func (h *host) Log(args ...any)           { fmt.Fprintln(os.Stderr, args...) }
func (h *host) Logf(f string, a ...any)   { fmt.Fprintf(os.Stderr, f+"\n", a...) }
func (h *host) Error(args ...any)         { h.failed = true; h.Log(args...) }
func (h *host) Errorf(f string, a ...any) { h.failed = true; h.Logf(f, a...) }

// Fatal ends the case.
func (h *host) Fatal(args ...any) { h.Error(args...); panic(errFailed) }

// Fatalf ends the case.
func (h *host) Fatalf(f string, a ...any) { h.Errorf(f, a...); panic(errFailed) }

// Skip ends the case: a measurement that could not be made is a failure.
func (h *host) Skip(args ...any) { h.Fatal(args...) }

// TempDir is a directory until the case ends.
func (h *host) TempDir() string {
	dir, err := os.MkdirTemp("", "walpost-bench-")
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
