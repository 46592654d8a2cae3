package checkpoint

import (
	"strings"
	"testing"
)

func TestDecodeStateRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		``, `{}`, `{"version":2,"timeline":1,"end_lsn":"0/1","commit_lsn":"0/0"}`,
		`{"version":1,"timeline":1,"end_lsn":"x","commit_lsn":"0/0"}`,
		`{"version":1,"timeline":0,"end_lsn":"0/1","commit_lsn":"0/0"}`,
		`{"version":1,"timeline":1,"end_lsn":"0/0","commit_lsn":"0/0"}`,
	} {
		if s, err := DecodeState([]byte(bad)); err == nil {
			t.Errorf("DecodeState(%s) = %+v, want an error", bad, s)
		}
	}
	value, err := at(0x16B3748).Encode("1/a")
	if err != nil || !strings.Contains(string(value), `"end_lsn":"0/16B3748"`) {
		t.Fatalf("Encode = %s, %v", value, err)
	}
}

// TestMergeKeepsHistoriesApart: a position on another timeline, or from before an operator's
// decision, does not move the one that counts.
func TestMergeKeepsHistoriesApart(t *testing.T) {
	t.Parallel()
	base := State{Timeline: 2, Generation: 1, Position: Position{End: 100, Commit: 300, Rows: 1}}
	for _, other := range []State{
		{Timeline: 1, Generation: 1, Position: Position{End: 900}},
		{Timeline: 2, Generation: 0, Position: Position{End: 900}},
	} {
		if got := other.Merge(base); got.Position != base.Position || got.Overwritten {
			t.Errorf("%+v and then %+v are %+v", other, base, got)
		}
		if got := base.Merge(other); got.Position != base.Position || !got.Overwritten {
			t.Errorf("%+v and then %+v are %+v", base, other, got)
		}
	}
}
