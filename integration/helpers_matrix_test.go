package integration

import (
	"fmt"
	"testing"

	"github.com/walpost/walpost/integration/servers"
)

var deliveries = []string{"at-least-once", exactly}

const (
	exactly     = "exactly-once"
	exactlyOnce = "WALPOST_DELIVERY=" + exactly
)

// combination is a version of Postgres with a delivery.
type combination struct {
	major    int
	delivery string
}

func (c combination) String() string { return fmt.Sprintf("postgres %d, %s", c.major, c.delivery) }

// combinations are two in which both versions and both deliveries occur; where time does not
// matter, all four.
func combinations() []combination {
	two := []combination{{15, "at-least-once"}, {18, exactly}}
	others := []combination{{15, exactly}, {18, "at-least-once"}}
	if longWanted() {
		return append(two, others...)
	}
	servers.Untested("faults of Postgres", fmt.Sprintf("with %s, and with %s: set WALPOST_TEST_LONG=1",
		others[0], others[1]))
	return two
}

// matrix runs a test with both versions of Postgres and both deliveries.
func matrix(t *testing.T, f func(t *testing.T, major int, delivery string)) {
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			f(t, c.major, c.delivery)
		})
	}
}
