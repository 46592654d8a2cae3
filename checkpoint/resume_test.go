package checkpoint

import (
	"errors"
	"testing"
)

func TestResume(t *testing.T) {
	t.Parallel()
	ended := func(at LSN) func(uint32) (LSN, bool) {
		return func(tl uint32) (LSN, bool) { return at, tl == 1 }
	}
	state := func(tl uint32, p Position) State { return State{Timeline: tl, Position: p} }
	tests := []struct {
		name   string
		state  State
		stored bool
		server Server
		want   Start
		err    any
	}{
		{
			name:   "nothing stored: the slot's position is adopted",
			server: Server{ConfirmedFlush: 500, WALEnd: 900, Timeline: 1},
			want:   Start{Position: Position{End: 500}, First: true},
		}, {
			name:  "stored position at the slot's",
			state: state(1, Position{End: 500}), stored: true,
			server: Server{ConfirmedFlush: 500, WALEnd: 900, Timeline: 1},
			want:   Start{Position: Position{End: 500}, Timeline: 1},
		}, {
			name:  "slot rolled back by a crash: the stored position wins",
			state: state(1, Position{End: 700, Commit: 800, Rows: 3}), stored: true,
			server: Server{ConfirmedFlush: 500, WALEnd: 900, Timeline: 1},
			want:   Start{Position: Position{End: 700, Commit: 800, Rows: 3}, Timeline: 1},
		}, {
			name:  "slot ahead: moved or re-created",
			state: state(1, Position{End: 499}), stored: true,
			server: Server{ConfirmedFlush: 500, WALEnd: 900, Timeline: 1},
			err:    new(*GapError),
		}, {
			name:  "beyond the WAL: restored to an earlier moment",
			state: state(1, Position{End: 901}), stored: true,
			server: Server{ConfirmedFlush: 500, WALEnd: 900, Timeline: 1},
			err:    new(*RestoredError),
		}, {
			name:  "inside a transaction beyond the WAL: restored to a moment before it",
			state: state(1, Position{End: 550, Commit: 900, Rows: 2}), stored: true,
			server: Server{ConfirmedFlush: 500, WALEnd: 900, Timeline: 1},
			err:    new(*RestoredError),
		}, {
			name:  "stored on a later timeline than the server's",
			state: state(2, Position{End: 700}), stored: true,
			server: Server{ConfirmedFlush: 500, WALEnd: 900, Timeline: 1},
			err:    new(*RestoredError),
		}, {
			name:  "stored on a timeline the server never had",
			state: state(3, Position{End: 700}), stored: true,
			server: Server{ConfirmedFlush: 500, WALEnd: 900, Timeline: 4, Ended: ended(600)},
			err:    new(*RestoredError),
		}, {
			name:  "failover behind the stored position: start at the switch, say what is lost",
			state: state(1, Position{End: 700, Commit: 750, Rows: 2}), stored: true,
			server: Server{ConfirmedFlush: 500, WALEnd: 900, Timeline: 2, Ended: ended(600)},
			want:   Start{Position: Position{End: 600}, Lost: 750, Timeline: 2},
		}, {
			name:  "failover after the stored position: nothing is lost",
			state: state(1, Position{End: 550, Commit: 590, Rows: 2}), stored: true,
			server: Server{ConfirmedFlush: 500, WALEnd: 900, Timeline: 2, Ended: ended(600)},
			want:   Start{Position: Position{End: 550, Commit: 590, Rows: 2}, Timeline: 1},
		}, {
			name:  "failover inside a transaction that was published in part",
			state: state(1, Position{End: 550, Commit: 650, Rows: 2}), stored: true,
			server: Server{ConfirmedFlush: 500, WALEnd: 900, Timeline: 2, Ended: ended(600)},
			want:   Start{Position: Position{End: 550}, Lost: 650, Timeline: 2},
		}, {
			name:  "failover at the very commit record of a transaction that was published in part",
			state: state(1, Position{End: 550, Commit: 600, Rows: 2}), stored: true,
			server: Server{ConfirmedFlush: 500, WALEnd: 900, Timeline: 2, Ended: ended(600)},
			want:   Start{Position: Position{End: 550}, Lost: 600, Timeline: 2},
		}, {
			name:  "a position that was stored after such a failover, and lies before it",
			state: state(2, Position{End: 590}), stored: true,
			server: Server{ConfirmedFlush: 590, WALEnd: 900, Timeline: 2, Ended: ended(600)},
			want:   Start{Position: Position{End: 590}, Timeline: 2},
		}, {
			name:  "failover, and the slot was re-created on the new primary",
			state: state(1, Position{End: 700}), stored: true,
			server: Server{ConfirmedFlush: 800, WALEnd: 900, Timeline: 2, Ended: ended(600)},
			err:    new(*GapError),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Resume(tt.state, tt.stored, tt.server)
			if tt.err != nil {
				if err == nil || !errors.As(err, tt.err) {
					t.Fatalf("error is %v, want %T", err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Fatalf("Resume = %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}
