package checkpoint

import "testing"

// TestPositionsInOrder: each position has published more than the one before it, whatever its End.
func TestPositionsInOrder(t *testing.T) {
	t.Parallel()
	positions := []Position{
		{End: 100},
		{End: 120},                       // an idle advance, or a transaction of other tables
		{End: 200},                       // the WAL end, where the next commit record begins
		{End: 100, Commit: 200, Rows: 1}, // inside that transaction: further than the WAL end before it
		{End: 120, Commit: 200, Rows: 1},
		{End: 100, Commit: 200, Rows: 2},
		{End: 200, Commit: 200, Rows: 2},
		{End: 248}, // the end of that transaction
		{End: 248, Commit: 300, Rows: 1},
		{End: 348},
	}
	for i, p := range positions {
		for j, q := range positions {
			if got, want := p.Before(q), i < j; got != want {
				t.Errorf("(%v).Before(%v) = %t, want %t", p, q, got, want)
			}
		}
	}
}

func TestPositionInWords(t *testing.T) {
	for want, p := range map[string]Position{
		"0/10": {End: 0x10},
		"0/10 and 1 row of the transaction at 0/20":  {End: 0x10, Commit: 0x20, Rows: 1},
		"0/10 and 2 rows of the transaction at 0/20": {End: 0x10, Commit: 0x20, Rows: 2},
	} {
		if got := p.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
