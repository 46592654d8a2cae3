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
	Relay   string   `json:"relay_error"` // why no relay answers
	Reasons []string `json:"reasons"`     // what is wrong; none = a relay reads the slot, and all is well
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

// inspect asks the servers that the settings name. If one does not answer, the other's part is
// complete all the same.
func (c *statusCommand) inspect(ctx context.Context, noRelayErr error) *serversStatus {
	s := &serversStatus{
		Version: version(), State: noRelay, Relay: noRelayErr.Error(),
		Reasons: []string{}, Hints: []string{}, Warnings: []string{}, Up: map[string]bool{},
		slot: c.Slot, publication: c.Publication, topic: c.StateTopic, tables: c.Table,
	}
	var other *strangerError
	if errors.As(noRelayErr, &other) {
		s.State = stranger
	}
	var compare comparison
	if c.PostgresURL != "" {
		var err error
		if compare, err = c.inspectPostgres(ctx, s); err != nil {
			s.wrong(err)
		}
	}
	if len(c.KafkaBrokers) > 0 {
		if err := c.inspectKafka(ctx, s, compare); err != nil {
			s.wrong(err)
		}
	}
	s.unread()
	return s
}

// unread reports that no relay is known to run. It comes last, after what may have stopped it.
func (s *serversStatus) unread() {
	up, asked := s.Up[ops.PeerPostgres]
	switch {
	case !asked:
		s.wrong(&cdc.StopError{
			What: fmt.Sprintf("it is not known whether a relay reads slot %q: none answers, and no Postgres "+
				"is given", s.slot),
			Hint: "set WALPOST_POSTGRES_URL, or WALPOST_HTTP_ADDR to the address of the relay",
		})
	case up && s.Slot != nil && !s.Slot.Active:
		s.wrong(&cdc.StopError{
			What: fmt.Sprintf("no relay reads slot %q", s.slot),
			Hint: "once nothing else is wrong, start one with `walpost run`; until then Postgres retains " +
				"WAL for the slot. " +
				"If a relay has ended with exit code 3, its log says what to do",
		})
	}
}

// comparison tells why a relay could not go on from what is stored.
type comparison func(state checkpoint.State, stored bool) error

// inspectPostgres returns what a stored position is to be compared with; nil if it cannot be
// compared.
func (c *statusCommand) inspectPostgres(ctx context.Context, s *serversStatus) (comparison, error) {
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
		return nil, nil // a relay that runs moves the position meanwhile, and checks it by itself
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

// inspectKafka reads the stored position, and if it can be compared with the slot tells whether a
// relay could go on from it.
func (c *statusCommand) inspectKafka(ctx context.Context, s *serversStatus, compare comparison) error {
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
		What: fmt.Sprintf("an open Kafka transaction hides the end of state topic %q: the stored position "+
			"may be newer", c.StateTopic),
		Hint: "ask again in half a minute: a relay is committing, or was killed and the brokers abort its " +
			"transaction by then",
	}
}

// storedPosition reads the stored position and creates nothing. If Postgres did not tell the
// source, it takes the slot of that name, if only one cluster stored a position of one.
func (c *statusCommand) storedPosition(
	ctx context.Context, s *serversStatus,
) (state checkpoint.State, stored, hidden bool, err error) {
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
		return checkpoint.State{}, false, false, fmt.Errorf("state topic %q: %d clusters stored a position "+
			"of a slot %q; "+
			"set WALPOST_POSTGRES_URL to choose one", c.StateTopic, len(states), c.Slot)
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
