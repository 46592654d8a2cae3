package checkpoint

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
)

// stateVersion is the version of the state record that this package writes.
const stateVersion = 1

// State is a stored position: the value of a record of the state topic. The record's key is the
// source.
type State struct {
	Position
	Timeline uint32    // the timeline of the position's Furthest LSN, or a later one: see [Start]
	At       time.Time // when it was stored
	// Generation grows when an operator makes another position count, perhaps an earlier one: see
	// Store.Reset.
	Generation uint32
	// Publication is the publication identity of the last inspection that found nothing wrong. If a
	// start finds another one, somebody altered the publication, and rows may be missing in the
	// stream although no relay ran. Never modified.
	Publication map[string]string
	// Overwritten says, of a state that was read, that a later record says less. Compaction may
	// leave only that record.
	Overwritten bool
}

// Before orders states as their streams ran: a later timeline is a later state, whatever its LSN. A
// decision of an operator overrides both.
func (s State) Before(t State) bool {
	if s.Generation != t.Generation {
		return s.Generation < t.Generation
	}
	if s.Timeline != t.Timeline {
		return s.Timeline < t.Timeline
	}
	return s.Position.Before(t.Position)
}

// Merge returns what two records of one source say together, where t is the later record. The
// furthest counts, not the last: a relay that was paused may write its old position after its
// successor wrote a newer one. And both are true: if one is inside a transaction and the other is
// an idle advance that ends before it, no transaction ends between the two Ends, so the later End
// may be confirmed.
func (s State) Merge(t State) State {
	far, near := t, s
	if t.Before(s) {
		far, near = s, t
	}
	if near.Generation == far.Generation && near.Timeline == far.Timeline {
		far.End = max(far.End, near.End)
	}
	far.Overwritten = far.Position != t.Position || far.Timeline != t.Timeline || far.Generation != t.Generation
	return far
}

// stateJSON is the wire form of a state. LSNs are text, as Postgres prints them.
type stateJSON struct {
	Version  int       `json:"version"`
	Source   string    `json:"source"`
	Timeline uint32    `json:"timeline"`
	End      string    `json:"end_lsn"`
	Commit   string    `json:"commit_lsn"`
	Rows     uint32    `json:"rows_done"`
	At       time.Time `json:"at"`

	Generation  uint32            `json:"generation,omitempty"`
	Publication map[string]string `json:"publication,omitempty"`
}

// Encode returns the record value of the state of a source.
func (s State) Encode(source string) ([]byte, error) {
	return json.Marshal(stateJSON{
		Version: stateVersion, Source: source, Timeline: s.Timeline,
		End: s.End.String(), Commit: s.Commit.String(), Rows: s.Rows, At: s.At.UTC(),
		Generation: s.Generation, Publication: s.Publication,
	})
}

// RecordError is a record of the state topic that cannot be read: another program may have written
// it.
type RecordError struct {
	Topic  string
	Offset int64
	Err    error
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("state topic %q, offset %d: %v", e.Topic, e.Offset, e.Err)
}

func (e *RecordError) Unwrap() error { return e.Err }

// DecodeState reads a record value of the state topic.
func DecodeState(value []byte) (State, error) {
	var j stateJSON
	if err := json.Unmarshal(value, &j); err != nil {
		return State{}, fmt.Errorf("decode state record: %w", err)
	}
	if j.Version != stateVersion {
		return State{}, fmt.Errorf("decode state record: it has version %d, and this walpost reads version %d: "+
			"start the newer walpost that wrote it", j.Version, stateVersion)
	}
	end, err := pglogrepl.ParseLSN(j.End)
	if err != nil {
		return State{}, fmt.Errorf("decode end_lsn of state record: %w", err)
	}
	commit, err := pglogrepl.ParseLSN(j.Commit)
	if err != nil {
		return State{}, fmt.Errorf("decode commit_lsn of state record: %w", err)
	}
	if end == 0 || j.Timeline == 0 {
		return State{}, fmt.Errorf("decode state record: end_lsn %s on timeline %d is not a position",
			j.End, j.Timeline)
	}
	return State{
		Position: Position{End: end, Commit: commit, Rows: j.Rows},
		Timeline: j.Timeline, At: j.At, Generation: j.Generation, Publication: j.Publication,
	}, nil
}
