package workload

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
)

func TestMustJSON(t *testing.T) {
	t.Parallel()
	w := &writer{w: &Workload{}, random: rand.New(rand.NewPCG(1, 2))}
	for range 2000 {
		r := w.event(aggregate{"order", 3}, 1)
		if r.payload != nil && !json.Valid([]byte(*r.payload)) || !json.Valid([]byte(r.headers)) ||
			r.headers == "null" {
			t.Fatalf("invalid: %v", r)
		}
	}
}
