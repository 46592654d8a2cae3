package integration

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/walpost/walpost/integration/servers"
)

// TestMain stops the shared servers at the end, says what ran against what, and plays the fake
// broker when it is run as one.
func TestMain(m *testing.M) {
	if servers.PlayFake() {
		os.Exit(0)
	}
	code := m.Run()
	servers.Close()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	fmt.Println(servers.Summary())
	if path := os.Getenv("WALPOST_TEST_SUMMARY"); path != "" { // go test hides the output of a package that passes
		if err := os.WriteFile(path, []byte(servers.Summary()+"\n"), 0o600); err != nil {
			fmt.Println("write summary:", err)
			code = 1
		}
	}
	os.Exit(code)
}
