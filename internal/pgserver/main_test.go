package pgserver

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// orphanDir makes the test binary play the parent of a server: it starts one in that directory,
// prints the process ids of the postmaster and its children, and waits to be killed.
const orphanDir = "WALPOST_PGSERVER_TEST_ORPHAN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(orphanDir); dir != "" {
		s, err := Start(context.Background(), Options{Dir: dir})
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println(s.proc.PID, s.proc.Children())
		select {}
	}
	goleak.VerifyTestMain(m)
}
