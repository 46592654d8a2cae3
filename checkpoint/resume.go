package checkpoint

import "fmt"

// Server is what a start needs to know of the slot and of the server that holds it.
type Server struct {
	Slot           string
	ConfirmedFlush LSN    // confirmed_flush_lsn of the slot, read while we held the slot
	WALEnd         LSN    // the end of the server's WAL
	Timeline       uint32 // the server's current timeline
	// Ended returns where a former timeline of the server ended; false = its history does not know
	// it.
	Ended func(timeline uint32) (LSN, bool)
}

// Start is where a session begins.
type Start struct {
	Position Position
	First    bool // nothing was stored: this is the slot's own position
	// Lost is set after a failover to a server that lacked the last part of what was published:
	// events between Position.End and Lost are in Kafka, but no longer in the database.
	Lost LSN
	// Timeline is the least timeline to store positions of this session with. If Position was cut,
	// one stored with an earlier timeline would lose to the position before the cut, which is
	// further, and a later start would have to cut that again.
	Timeline uint32
}

// GapError says that the slot is ahead of the stored position: somebody moved or re-created it. The
// stream cannot fill the gap.
type GapError struct {
	Slot              string
	Stored, Confirmed LSN
}

func (e *GapError) Error() string {
	return fmt.Sprintf("slot %q is at %s, ahead of the stored position %s: the slot was moved or re-created, "+
		"and what was committed between these two LSNs cannot be read from it", e.Slot, e.Confirmed, e.Stored)
}

// Hint says what an operator does.
func (e *GapError) Hint() string {
	return "run `walpost init --accept-gap`, which stores the slot's position, and start walpost. " +
		"Then insert again what was committed between the two LSNs and did not arrive: docs/OPERATIONS.md#a-gap"
}

// RestoredError says that the stored position lies in a future that the server does not have.
type RestoredError struct {
	Stored, WALEnd LSN
	StoredTimeline uint32
	Timeline       uint32
}

func (e *RestoredError) Error() string {
	return fmt.Sprintf("the stored position %s on timeline %d is not part of the server's history "+
		"(WAL end %s on timeline %d): the server was restored to an earlier moment, "+
		"or it is another copy of the cluster",
		e.Stored, e.StoredTimeline, e.WALEnd, e.Timeline)
}

// Hint says what an operator does.
func (e *RestoredError) Hint() string {
	return "decide what consumers of the events published after that moment must do: this server does not know them. " +
		"Then run `walpost init --accept-gap`, which stores the slot's position: docs/OPERATIONS.md#a-restore"
}

// Resume decides where a session starts. state is the furthest state stored for this source; stored
// is false if there is none. The errors are *GapError and *RestoredError; both need an operator.
func Resume(state State, stored bool, server Server) (Start, error) {
	if !stored {
		return Start{Position: Position{End: server.ConfirmedFlush}, First: true}, nil
	}
	restored := &RestoredError{
		Stored: state.Furthest(), WALEnd: server.WALEnd,
		StoredTimeline: state.Timeline, Timeline: server.Timeline,
	}
	start := Start{Position: state.Position, Timeline: state.Timeline}
	if state.Timeline != server.Timeline {
		if state.Timeline > server.Timeline {
			return Start{}, restored
		}
		end, ok := server.Ended(state.Timeline)
		if !ok {
			return Start{}, restored
		}
		start.cut(end, server.Timeline)
	} else if state.End > server.WALEnd || state.Rows > 0 && state.Commit >= server.WALEnd {
		return Start{}, restored
	}
	if start.Position.End < server.ConfirmedFlush {
		return Start{}, &GapError{Slot: server.Slot, Stored: start.Position.End, Confirmed: server.ConfirmedFlush}
	}
	return start, nil
}

// cut cuts the position at the point where its timeline ended.
func (s *Start) cut(ended LSN, present uint32) {
	p := s.Position
	if p.Commit >= ended {
		s.Position.Commit, s.Position.Rows = 0, 0
		s.Lost = p.Commit
	}
	if p.End > ended {
		s.Position.End = ended
		s.Lost = max(s.Lost, p.End)
	}
	if s.Lost != 0 {
		s.Timeline = present
	}
}
