package config

import (
	"slices"
	"testing"
)

// TestGivenTwice: of two values for one thing the last would win without a word.
func TestGivenTwice(t *testing.T) {
	for _, args := range [][]string{
		{"--columns=id=a,type=b,id=c"}, {"--columns=id=a", "--columns=type=b,id=c"}, {"--columns=id=a,id=a"},
	} {
		setup(t, nil, "")
		_, _, err := parse(t, slices.Concat([]string{"run"}, required, args)...)
		wantFaults(t, err, []string{`--columns (WALPOST_COLUMNS, columns): "id" is given twice`})
	}
	setup(t, map[string]string{"WALPOST_COLUMNS": "id=a,id=b"}, "")
	_, _, err := parse(t, append([]string{"run"}, required...)...)
	wantFaults(t, err, []string{`"id" is given twice`})
	_, _, err = parse(t, append([]string{"run", "--columns=id=c"}, required...)...)
	wantFaults(t, err, nil)
	setup(t, map[string]string{"WALPOST_COLUMNS": "id=a"}, "columns: {id: b}\n")
	_, _, err = parse(t, append([]string{"run", "--columns=id=c", "--columns=type=id"}, required...)...)
	wantFaults(t, err, nil)
	for _, file := range []string{"slot: a\nslot: b\n", "columns: {id: a, id: b}\n", "columns:\n  id: a\n  id: b\n", "columns: id=a,id=b\n"} {
		setup(t, nil, file)
		if _, _, err := parse(t, append([]string{"run"}, required...)...); err == nil {
			t.Errorf("%q is taken", file)
		}
	}
}

// TestNegativeNumbers are values and no flags.
func TestNegativeNumbers(t *testing.T) {
	setup(t, nil, "")
	c, _, err := parse(t, "init", required[0], "--count", "-3")
	if err != nil || c.Init.Count != -3 {
		t.Errorf("got %d, %v", c.Init.Count, err)
	}
	_, _, err = parse(t, "init", required[0], "--count", "-x")
	wantFaults(t, err, []string{"unknown flag -x", "--count: needs a value"})
	_, _, err = parse(t, "run", "--slot", "--publication=p", required[0], required[1])
	wantFaults(t, err, []string{"--slot (WALPOST_SLOT, slot): needs a value"})
}
