package pgserver

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestInstallIsAtomic(t *testing.T) {
	t.Parallel()
	cache := t.TempDir()
	failure := errors.New("interrupted")
	_, err := Install(cache, "thing", func(dir string) error {
		if err := os.WriteFile(filepath.Join(dir, "half"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Fatalf("err = %v", err)
	}
	left, err := os.ReadDir(cache)
	if err != nil || len(left) != 0 {
		t.Fatalf("a failed fill left %v (%v)", left, err)
	}
	for range 2 { // the second finds the first and keeps it
		dir, err := Install(cache, "thing", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "whole"), nil, 0o600)
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "whole")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAccountReaches(t *testing.T) {
	t.Parallel()
	stranger := &account{uid: 1 << 30}
	dir, err := os.MkdirTemp("", "walpost-pgserver-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	inside := filepath.Join(dir, "data")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if !stranger.reaches(inside) {
		t.Errorf("%s should be reachable", inside)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if stranger.reaches(inside) {
		t.Errorf("%s should not be reachable", inside)
	}
	if !(*account)(nil).reaches(inside) {
		t.Error("the own account reaches everything it made")
	}
}
