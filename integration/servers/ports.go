package servers

import "github.com/walpost/walpost/internal/pgserver"

// FreePorts returns different ports on which nobody listens.
func FreePorts(count int) ([]int, error) {
	var ports []int
	for range count {
		port, err := pgserver.FreePort()
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}
