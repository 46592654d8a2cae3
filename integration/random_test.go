package integration

import "math/rand/v2"

// testRandom is the same at each run.
func testRandom() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }
