package ops

import "time"

// Source gives what the server shows. Snapshot is called for every request, from several
// goroutines, and must not block on the pipeline; the maps that it returns must not change
// afterwards.
type Source interface {
	Snapshot() Snapshot
}

// Peers of the relay, as Snapshot.Up and Snapshot.Reconnects name them.
const (
	PeerPostgres = "postgres"
	PeerKafka    = "kafka"
)

// Snapshot is the relay at one moment. Its maps may be nil.
type Snapshot struct {
	Version  string
	Source   string   // "<system identifier>/<slot>"; empty until the server is known.
	Delivery string   // at-least-once, exactly-once or effectively-once
	State    string   // starting, waiting for slot, streaming, reconnecting, draining or stopped.
	Reasons  []string // Why the relay is not ready, a sentence each. None means ready.
	Warnings []string // What may cost or repeat events although it works, a sentence each.

	Up         map[string]bool   // By peer.
	Reconnects map[string]uint64 // By peer, since the start of the process.

	InFlightEvents int64
	InFlightBytes  int64

	// Positions in the WAL; zero means not known.
	ConfirmedLSN uint64 // Confirmed to Postgres.
	StoredLSN    uint64 // In the state topic.
	ReceivedLSN  uint64 // Received from Postgres.
	RestartLSN   uint64 // Where the WAL begins that Postgres retains for the slot.

	// Bytes of WAL; NaN means not known.
	ConfirmedLagBytes float64
	RestartLagBytes   float64
	SlotSafeWALBytes  float64 // How much more may be written before the slot is in danger.

	OldestUnpublished time.Duration     // Age of the oldest event that the brokers have not confirmed; zero = none.
	Published         map[string]uint64 // Events by topic, since the start of the process.
	ProduceErrors     map[string]uint64 // By reason, since the start of the process.
	Holder            string            // The session that pins RestartLSN, if known.
}

func (s Snapshot) ready() bool { return len(s.Reasons) == 0 }
