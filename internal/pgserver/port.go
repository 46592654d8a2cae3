package pgserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
)

// Ports are chosen below those that kernels give to clients: a server that is stopped must find its
// port free when it starts again, and nothing holds the port meanwhile.
const firstPort, lastPort = 10_000, 32_000

var given struct {
	sync.Mutex
	ports []int
}

// FreePort returns a port of the local host on which nobody listens. No port is given twice in one
// process.
func FreePort() (int, error) {
	given.Lock()
	defer given.Unlock()
	var errs []error
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if slices.Contains(given.ports, port) {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			err = l.Close()
		}
		if err == nil {
			given.ports = append(given.ports, port)
			return port, nil
		}
		errs = append(errs, err)
	}
	return 0, fmt.Errorf("find a free port: %w", errors.Join(errs...))
}
