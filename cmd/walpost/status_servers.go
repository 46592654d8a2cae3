package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/internal/ops"
)

// serversStatus is what Postgres and Kafka alone can tell. Names that ops.Status has as well mean
// the same.
type serversStatus struct {
	Version string   `json:"version"`
	Source  string   `json:"source,omitempty"`
	State   string   `json:"state"`
	Relay   string   `json:"relay_error"` // why no relay was believed
	Reasons []string `json:"reasons"`     // what is wrong; none = a relay reads the slot, and all that was asked is well
	Hints   []string `json:"hints"`       // what to do about it

	Warnings []string `json:"warnings"` // what may cost or repeat events although a relay works

	Up map[string]bool `json:"up"` // by peer that was asked

	Slot         *cdc.SlotView `json:"slot"`
	ConfirmedLSN *string       `json:"confirmed_lsn"`
	StoredLSN    *string       `json:"stored_lsn"`
	RestartLSN   *string       `json:"restart_lsn"`
	StoredAt     *time.Time    `json:"stored_at"`
	Timeline     uint32        `json:"stored_timeline,omitempty"`

	ConfirmedLagBytes *float64 `json:"confirmed_lag_bytes"`
	RestartLagBytes   *float64 `json:"restart_lag_bytes"`
	SlotSafeWALBytes  *float64 `json:"slot_safe_wal_bytes"`
	Holder            string   `json:"restart_lsn_holder,omitempty"`

	slot, publication, topic string // names, for people
	tables                   []string
	published                bool // the publication exists
	unusable                 bool // the settings are: a usage error
}

// What State says where no relay does.
const (
	noRelay  = "no relay answers"
	stranger = "another relay answers"
)

func (s *serversStatus) well() bool { return len(s.Reasons) == 0 }

// wrong notes an error and what an operator can do.
func (s *serversStatus) wrong(err error) {
	s.Reasons = append(s.Reasons, err.Error())
	var stop *cdc.StopError
	var settings *cdc.SettingsError
	var hinted interface{ Hint() string }
	switch {
	case errors.As(err, &settings):
		s.Hints, s.unusable = append(s.Hints, settings.Hint), true
	case errors.As(err, &stop):
		s.Hints = append(s.Hints, stop.Hint)
	case errors.As(err, &hinted):
		s.Hints = append(s.Hints, hinted.Hint())
	}
}

const (
	// serverTimeout bounds what one server may take.
	serverTimeout = 5 * time.Second
	// postgresTimeout is longer: of several addresses some may be dark, and each takes its moment.
	postgresTimeout = 15 * time.Second
)

// look asks the servers that the settings name. Each may be away without the other's part
// suffering.
func (c *statusCommand) look(ctx context.Context, noRelayErr error) *serversStatus {
	s := &serversStatus{
		Version: version(), State: noRelay, Relay: noRelayErr.Error(), Reasons: []string{}, Hints: []string{}, Warnings: []string{}, Up: map[string]bool{},
		slot: c.Slot, publication: c.Publication, topic: c.StateTopic, tables: c.Table,
	}
	var other *strangerError
	if errors.As(noRelayErr, &other) {
		s.State = stranger
	}
	var compare comparison
	if c.PostgresURL != "" {
		var err error
		if compare, err = c.lookAtPostgres(ctx, s); err != nil {
			s.wrong(err)
		}
	}
	if len(c.KafkaBrokers) > 0 {
		if err := c.lookAtKafka(ctx, s, compare); err != nil {
			s.wrong(err)
		}
	}
	s.unread()
	return s
}

// unread says that no relay is known to run. It comes last, after what may have stopped it.
func (s *serversStatus) unread() {
	up, asked := s.Up[ops.PeerPostgres]
	switch {
	case !asked:
		s.wrong(&cdc.StopError{
			What: fmt.Sprintf("nobody can tell whether a relay reads slot %q: none answers, and no Postgres is given", s.slot),
			Hint: "give --postgres-url (WALPOST_POSTGRES_URL), or in WALPOST_HTTP_ADDR the address of the relay",
		})
	case up && s.Slot != nil && !s.Slot.Active:
		s.wrong(&cdc.StopError{
			What: fmt.Sprintf("no relay reads slot %q", s.slot),
			Hint: "start one with `walpost run`, once nothing else is wrong (the log of one that has ended with exit code 3 says why, and what helps); until then Postgres keeps all WAL that the slot needs",
		})
	}
}

// comparison tells why a relay could not go on from what is stored.
type comparison func(state checkpoint.State, stored bool) error

// lookAtPostgres returns what a stored position is to be compared with; nil if it cannot be
// compared.
func (c *statusCommand) lookAtPostgres(ctx context.Context, s *serversStatus) (comparison, error) {
	ctx, cancel := context.WithTimeout(ctx, postgresTimeout)
	defer cancel()
	stream, err := newStreamConfig(c.Config, zerolog.Nop())
	if err != nil {
		return nil, err
	}
	s.Up[ops.PeerPostgres] = false
	view, err := cdc.Inspect(ctx, stream)
	if err != nil {
		return nil, err
	}
	s.Up[ops.PeerPostgres] = true
	s.show(view)
	whole := view.Check(stream)
	if whole == nil {
		whole = checkColumns(c.Config, view)
	}
	for _, w := range view.Warnings(stream) {
		s.Warnings = append(s.Warnings, w.What+": "+w.Hint)
	}
	if whole != nil {
		s.wrong(whole)
	}
	conn, err := cdc.Connect(ctx, stream)
	if err != nil {
		return nil, err
	}
	conn.Close()
	s.Source = conn.System + "/" + c.Slot
	if view.Slot == nil || view.Slot.Active {
		return nil, nil // a relay that runs moves the position between the looks, and judges it by itself
	}
	return func(state checkpoint.State, stored bool) error {
		_, err := checkpoint.Resume(state, stored, checkpoint.Server{
			Slot: c.Slot, ConfirmedFlush: view.Slot.Confirmed(), WALEnd: view.WALEnd,
			Timeline: conn.History.Current(), Ended: conn.History.Ended,
		})
		if err != nil || whole != nil {
			return err
		}
		return view.CheckUnaltered(stream, state.Publication)
	}, nil
}

func (s *serversStatus) show(view cdc.View) {
	s.Holder, s.published = view.Holder, view.Publication != nil
	if s.Slot = view.Slot; s.Slot == nil {
		return
	}
	confirmed, restart := view.Slot.Confirmed(), view.Slot.Restart()
	s.ConfirmedLSN, s.ConfirmedLagBytes = behind(view.WALEnd, confirmed)
	s.RestartLSN, s.RestartLagBytes = behind(view.WALEnd, restart)
	if view.Slot.SafeWALSize != nil {
		size := float64(*view.Slot.SafeWALSize)
		s.SlotSafeWALBytes = &size
	}
}

// behind returns a position as text and its distance from the end; nil where there is none.
func behind(end, at cdc.LSN) (text *string, bytes *float64) {
	if at == 0 {
		return nil, nil
	}
	name, distance := at.String(), lag(end, at)
	return &name, &distance
}

// lookAtKafka reads the stored position, and if it can be compared with the slot tells whether a
// relay could go on from it.
func (c *statusCommand) lookAtKafka(ctx context.Context, s *serversStatus, compare comparison) error {
	limited, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	s.Up[ops.PeerKafka] = false
	state, stored, hidden, err := c.storedPosition(limited, s)
	if err != nil {
		return explain(ctx, c.Config, "", err)
	}
	s.Up[ops.PeerKafka] = true
	if stored {
		text, at := state.End.String(), state.At
		s.StoredLSN, s.StoredAt, s.Timeline = &text, &at, state.Timeline
	}
	if compare == nil {
		return nil
	}
	if err := compare(state, stored); err == nil || !hidden {
		return err
	}
	return &cdc.StopError{
		What: fmt.Sprintf("an open Kafka transaction hides the end of state topic %q, so the stored position may be a newer one", c.StateTopic),
		Hint: "it is of a relay that commits, or of one that was killed and whose transaction the brokers end within half a minute: ask again then",
	}
}

// storedPosition looks without creating anything. Where Postgres did not tell the source, a slot of
// that name in the only cluster that stored one will do.
func (c *statusCommand) storedPosition(ctx context.Context, s *serversStatus) (state checkpoint.State, stored, hidden bool, err error) {
	store, err := openStore(c.Config, "", zerolog.Nop())
	if err != nil {
		return checkpoint.State{}, false, false, err
	}
	defer store.Close()
	states, hidden, err := store.Peek(ctx, func(source string) bool { return c.isSource(s.Source, source) })
	if err != nil {
		return checkpoint.State{}, false, false, err
	}
	if len(states) > 1 {
		return checkpoint.State{}, false, false, fmt.Errorf("state topic %q: %d clusters stored a position of a slot %q, and only Postgres could tell which is meant",
			c.StateTopic, len(states), c.Slot)
	}
	for source, state := range states {
		s.Source = source
		return state, true, hidden, nil
	}
	return checkpoint.State{}, false, hidden, nil
}

func (c *statusCommand) isSource(known, source string) bool {
	if known != "" {
		return source == known
	}
	_, slot, _ := strings.Cut(source, "/")
	return slot == c.Slot
}
