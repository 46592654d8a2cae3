package ops

import (
	"fmt"
	"math"
)

// Status is the answer of /status.
type Status struct {
	Version  string   `json:"version"`
	Source   string   `json:"source"`
	Delivery string   `json:"delivery"`
	State    string   `json:"state"`
	Ready    bool     `json:"ready"`
	Reasons  []string `json:"reasons"`
	Warnings []string `json:"warnings"` // What may cost or repeat events although the relay works.

	Up         map[string]bool   `json:"up"`
	Reconnects map[string]uint64 `json:"reconnects"`

	InFlightEvents int64 `json:"in_flight_events"`
	InFlightBytes  int64 `json:"in_flight_bytes"`

	ConfirmedLSN *string `json:"confirmed_lsn"` // LSNs are as Postgres writes them; null where not known.
	StoredLSN    *string `json:"stored_lsn"`
	ReceivedLSN  *string `json:"received_lsn"`
	RestartLSN   *string `json:"restart_lsn"`

	ConfirmedLagBytes *float64 `json:"confirmed_lag_bytes"` // Null where not known.
	RestartLagBytes   *float64 `json:"restart_lag_bytes"`
	SlotSafeWALBytes  *float64 `json:"slot_safe_wal_bytes"`

	OldestUnpublishedSeconds float64           `json:"oldest_unpublished_seconds"`
	Published                map[string]uint64 `json:"published"`
	ProduceErrors            map[string]uint64 `json:"produce_errors"`
	Holder                   string            `json:"restart_lsn_holder,omitempty"`
}

// newStatus writes lists and maps that are empty as such, never as null: scripts then need no
// special case.
func newStatus(s Snapshot) Status {
	return Status{
		Version: s.Version, Source: s.Source, Delivery: s.Delivery, State: s.State,
		Ready: s.ready(), Reasons: append([]string{}, s.Reasons...),
		Warnings: append([]string{}, s.Warnings...),
		Up:       orEmpty(s.Up), Reconnects: orEmpty(s.Reconnects),
		InFlightEvents: s.InFlightEvents, InFlightBytes: s.InFlightBytes,
		ConfirmedLSN: lsn(s.ConfirmedLSN), StoredLSN: lsn(s.StoredLSN),
		ReceivedLSN: lsn(s.ReceivedLSN), RestartLSN: lsn(s.RestartLSN),
		ConfirmedLagBytes: known(s.ConfirmedLagBytes), RestartLagBytes: known(s.RestartLagBytes),
		SlotSafeWALBytes:         known(s.SlotSafeWALBytes),
		OldestUnpublishedSeconds: s.OldestUnpublished.Seconds(),
		Published:                orEmpty(s.Published), ProduceErrors: orEmpty(s.ProduceErrors), Holder: s.Holder,
	}
}

func orEmpty[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return m
}

func lsn(position uint64) *string {
	if position == 0 {
		return nil
	}
	text := fmt.Sprintf("%X/%X", position>>32, position&math.MaxUint32)
	return &text
}

// known leaves out what JSON cannot say.
func known(value float64) *float64 {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return nil
	}
	return &value
}
