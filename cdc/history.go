package cdc

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"
)

// History is the timeline history of a server: which LSNs lie on which timeline.
type History struct {
	current uint32
	former  []formerTimeline // in the order in which they ended
}

type formerTimeline struct {
	id    uint32
	ended LSN
}

// Current returns the server's timeline.
func (h History) Current() uint32 { return h.current }

// At returns the timeline on which a record at lsn lies.
func (h History) At(lsn LSN) uint32 {
	for _, f := range h.former {
		if lsn < f.ended {
			return f.id
		}
	}
	return h.current
}

// Ended returns where a former timeline of this history ended; false = the history does not know
// it.
func (h History) Ended(timeline uint32) (LSN, bool) {
	for _, f := range h.former {
		if f.id == timeline {
			return f.ended, true
		}
	}
	return 0, false
}

// parseHistory reads a timeline history file. A line holds a timeline, the LSN at which it ended
// and the reason, or a comment.
func parseHistory(current uint32, file []byte) (History, error) {
	h := History{current: current}
	lines := bufio.NewScanner(bytes.NewReader(file))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) < 2 {
			return History{}, fmt.Errorf("parse timeline history: line %q has no switch point", line)
		}
		id, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			return History{}, fmt.Errorf("parse timeline history: %w", err)
		}
		lsn, err := pglogrepl.ParseLSN(fields[1])
		if err != nil {
			return History{}, fmt.Errorf("parse timeline history: %w", err)
		}
		h.former = append(h.former, formerTimeline{uint32(id), lsn})
	}
	if err := lines.Err(); err != nil {
		return History{}, fmt.Errorf("parse timeline history: %w", err)
	}
	return h, nil
}
