package main

import (
	"math"
	"time"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/internal/ops"
	"github.com/walpost/walpost/internal/relay"
)

// snapshots gives the HTTP server the status of a relay.
type snapshots struct{ relay *relay.Relay }

// Snapshot implements ops.Source.
func (s snapshots) Snapshot() ops.Snapshot {
	st := s.relay.Status()
	snap := ops.Snapshot{
		Version: version(), Source: st.Source, Delivery: st.Delivery, State: string(st.State),
		Reasons: st.Reasons, Warnings: st.Warnings,
		Up:                map[string]bool{ops.PeerPostgres: st.Postgres, ops.PeerKafka: st.Sink.Up},
		Reconnects:        map[string]uint64{ops.PeerPostgres: st.Reconnects, ops.PeerKafka: st.Sink.Reconnects},
		InFlightEvents:    st.Sink.Events,
		InFlightBytes:     st.Sink.Bytes,
		ConfirmedLSN:      uint64(st.Confirmed),
		StoredLSN:         uint64(st.Stored),
		ReceivedLSN:       uint64(st.Received),
		ConfirmedLagBytes: math.NaN(), RestartLagBytes: math.NaN(), SlotSafeWALBytes: math.NaN(),
		Published: st.Sink.Published, ProduceErrors: st.Sink.Errors,
	}
	if !st.Oldest.IsZero() {
		snap.OldestUnpublished = max(time.Since(st.Oldest), 0)
	}
	if v := st.Database; v != nil && v.Slot != nil {
		restart := v.Slot.Restart()
		end := max(v.WALEnd, st.Received) // whichever is newer
		snap.RestartLSN = uint64(restart)
		snap.ConfirmedLagBytes, snap.RestartLagBytes = lag(end, st.Confirmed), lag(end, restart)
		if v.Slot.SafeWALSize != nil {
			snap.SlotSafeWALBytes = float64(*v.Slot.SafeWALSize)
		}
		snap.Holder = v.Holder
	}
	return snap
}

// lag returns how far lsn is behind end, in bytes. A position that was read after the end may be
// ahead of it.
func lag(end, lsn cdc.LSN) float64 {
	if lsn >= end {
		return 0
	}
	return float64(end - lsn)
}
