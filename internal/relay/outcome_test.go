package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/checkpoint"
	"github.com/walpost/walpost/decoder"
	"github.com/walpost/walpost/sink"
)

func TestClassify(t *testing.T) {
	t.Parallel()
	kafka := func(err error) error { return &kafkaError{fmt.Errorf("read state topic: %w", err)} }
	for name, c := range map[string]struct {
		err  error
		want class
	}{
		"no error":                 {nil, none},
		"slot in use":              {cdc.ErrSlotInUse, slotHeld},
		"slot in use by a relay":   {&heldError{"walpost", 7, false}, slotHeld},
		"server stops":             {cdc.ErrStopping, outage},
		"standby":                  {cdc.ErrStandby, outage},
		"changed meanwhile":        {errStale, stale},
		"no answer in time":        {context.DeadlineExceeded, outage},
		"told to stop":             {context.Canceled, outage},
		"Kafka unreachable":        {kafka(errors.New("dial tcp: connection refused")), outage},
		"Kafka leaderless":         {kafka(kerr.LeaderNotAvailable), outage},
		"state topic vanished":     {kafka(kerr.UnknownTopicOrPartition), outage},
		"Kafka password rotated":   {kafka(kerr.SaslAuthenticationFailed), outage},
		"Kafka mechanism taken":    {kafka(kerr.UnsupportedSaslMechanism), outage},
		"too few brokers yet":      {kafka(kerr.InvalidReplicationFactor), outage},
		"abort under way":          {kafka(kerr.ConcurrentTransactions), outage},
		"two relays at one moment": {kafka(kerr.ProducerFenced), outage},
		"state topic forbidden":    {kafka(kerr.TopicAuthorizationFailed), unstored},
		"state topic too wide":     {kafka(&checkpoint.TopicError{Topic: "s", Partitions: 3}), unstored},
		"state topic unreadable":   {kafka(&checkpoint.RecordError{Topic: "s", Err: errors.New("x")}), unstored},
		"commit lost":              {&sink.CommitError{Err: errors.New("x")}, outage},
		"commit told by Save":      {kafka(&sink.CommitError{Err: errors.New("x")}), outage},
		"commit fenced":            {&sink.CommitError{Fenced: true, Err: kerr.ProducerFenced}, fenced},
		"position refused":         {&sink.CommitError{Refused: true, Err: kerr.InvalidRecord}, unstored},
		"a client that gave up":    {&sink.EventError{Err: errors.New("x"), Outage: true}, outage},
		"refused event":            {&sink.EventError{Err: kerr.MessageTooLarge}, refused},
		"refused alone":            {&sink.EventError{Sent: true, Alone: true, Err: kerr.PolicyViolation}, refused},
		"refused with others":      {&sink.EventError{Sent: true, Err: kerr.PolicyViolation}, suspect},
		"refused, told by Save":    {kafka(&sink.EventError{Sent: true, Err: kerr.PolicyViolation}), suspect},
		"lost by the brokers":      {&sink.EventError{Sent: true, Reason: "data_loss", Err: kerr.OutOfOrderSequenceNumber}, refused},
		"bytes nobody can decode":  {&decoder.Error{Reason: "x"}, refused},
		"rows may be missing":      {&cdc.StopError{What: "x"}, doubt},
		"doubt of a fenced one":    {&cdc.StopError{What: "x", Err: &sink.CommitError{Fenced: true, Err: kerr.ProducerFenced}}, doubt},
		"settings do not fit":      {&unfitError{&cdc.StopError{What: "x"}}, misfit},
		"gap":                      {&checkpoint.GapError{}, gap},
		"restored":                 {&checkpoint.RestoredError{}, gap},
		"a pooler":                 {&cdc.SettingsError{}, settings},
		"a pooler, and an outage":  {poolerAndOutage(t), outage},
		"halted already":           {&Halt{Err: ErrDrain}, halted},
		"never seen":               {errors.New("x"), permanent},
	} {
		if got := classify(c.err).class; got != c.want {
			t.Errorf("%s: class %d, want %d", name, got, c.want)
		}
	}
}

// poolerAndOutage is what a connection attempt ends with if one address of Postgres leads to a
// pooler and another refuses.
func poolerAndOutage(t *testing.T) error {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			backend := pgproto3.NewBackend(conn, conn)
			if _, err := backend.ReceiveStartupMessage(); err == nil {
				backend.Send(&pgproto3.AuthenticationOk{})
				backend.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "9.6"})
				backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
				_ = backend.Flush()
			}
			_ = conn.Close()
		}
	}()
	postgres, err := pgconn.ParseConfig("postgres://me@" + listener.Addr().String() + ",127.0.0.1:1/app?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	_, err = cdc.Inspect(t.Context(), cdc.Config{Postgres: postgres, Log: zerolog.Nop()})
	return err
}

// TestDecide has every outcome of a session, and what follows from it.
func TestDecide(t *testing.T) {
	t.Parallel()
	refusedEvent := &sink.EventError{EventID: "e", Commit: 0x10, Sent: true, Err: kerr.PolicyViolation}
	alone := &sink.EventError{EventID: "e", Commit: 0x10, Sent: true, Alone: true, Err: kerr.PolicyViolation}
	stuck := &sink.EventError{EventID: "e", Commit: 0x10, Sent: true, Outage: true, Err: errors.New("x")}
	waiting := &sink.EventError{EventID: "w", Commit: 0x20}
	fencedErr := &sink.CommitError{Fenced: true, Err: kerr.ProducerFenced}
	for name, c := range map[string]struct {
		err                error
		stopped, long, sup bool
		before             handover
		action             action
		pause              time.Duration
		sink               sink.Handover
		drain              bool // the relay halts with ErrDrain
	}{
		"told to stop, all is stored":       {err: nil, stopped: true, action: stop},
		"told to stop in an outage":         {err: cdc.ErrStopping, stopped: true, action: stop},
		"told to stop while it waits":       {err: cdc.ErrSlotInUse, stopped: true, action: stop},
		"told to stop, fenced":              {err: fencedErr, stopped: true, action: stop},
		"told to stop, drain too long":      {err: &Halt{Err: ErrDrain}, stopped: true, action: halt, drain: true},
		"told to stop, event refused":       {err: refusedEvent, stopped: true, action: halt},
		"told to stop, event refused alone": {err: alone, stopped: true, action: halt},
		"told to stop, rows may be missing": {err: &cdc.StopError{What: "x"}, stopped: true, action: halt},
		"told to stop at something unknown": {err: fmt.Errorf("x: %w", context.Canceled), stopped: true, action: stop},
		"outage":                            {err: cdc.ErrStopping, action: tryAgain, pause: firstPause},
		"outage again":                      {err: cdc.ErrStopping, before: handover{pause: firstPause}, action: tryAgain, pause: 2 * firstPause},
		"outage for long":                   {err: cdc.ErrStopping, before: handover{pause: longPause}, action: tryAgain, pause: longPause},
		"outage of a session that lasted":   {err: cdc.ErrStopping, long: true, before: handover{pause: longPause}, action: tryAgain, pause: firstPause},
		"slot in use for long":              {err: cdc.ErrSlotInUse, before: handover{pause: longPause}, action: tryAgain, pause: slotPause},
		"changed meanwhile":                 {err: errStale, before: handover{pause: firstPause}, action: tryAgain},
		"an event is stuck":                 {err: stuck, action: tryAgain, pause: firstPause, sink: sink.Handover{Stuck: stuck}},
		"a slow transaction": {
			err: &sink.CommitError{Slow: true, Waiting: waiting, Err: errors.New("slow")}, action: tryAgain, pause: firstPause,
			sink: sink.Handover{Stuck: waiting, First: 1 << 20},
		},
		"a slow transaction again": {
			err: &sink.CommitError{Slow: true, Err: errors.New("slow")}, before: handover{sink: sink.Handover{First: 1 << 17, Stuck: stuck}},
			action: tryAgain, pause: firstPause, sink: sink.Handover{Stuck: stuck, First: smallestBatch},
		},
		"refused with others":     {err: refusedEvent, action: tryAgain, pause: firstPause, sink: sink.Handover{Refused: refusedEvent}},
		"fenced by the brokers":   {err: fencedErr, action: tryAgain, pause: firstPause},
		"fenced by another relay": {err: fencedErr, sup: true, action: halt},
		"refused alone":           {err: alone, action: halt},
		"a row that is no event":  {err: &decoder.Error{Reason: "x"}, action: halt},
		"rows may be missing":     {err: &cdc.StopError{What: "x"}, action: halt},
		"settings do not fit":     {err: &unfitError{&cdc.StopError{What: "x", Hint: "y"}}, action: halt},
		"gap":                     {err: &checkpoint.GapError{}, action: halt},
		"state topic refuses":     {err: &kafkaError{kerr.TopicAuthorizationFailed}, action: halt},
		"a setting cannot work":   {err: &cdc.SettingsError{}, action: halt},
		"something never seen":    {err: errors.New("x"), action: halt},
	} {
		r := testRelay()
		r.cfg.Batch, r.cfg.MaxInFlight = 4<<20, 16<<20
		h, next := r.decide(c.before, outcome{failure: classify(c.err), stopped: c.stopped, superseded: c.sup, long: c.long})
		if next.action != c.action || next.pause != c.pause {
			t.Errorf("%s: action %d after %s, want %d after %s", name, next.action, next.pause, c.action, c.pause)
		}
		if h.sink != c.sink {
			t.Errorf("%s: the next sink is given %+v, want %+v", name, h.sink, c.sink)
		}
		var why *Halt
		if got := errors.As(next.err, &why); got != (c.action == halt) {
			t.Errorf("%s: ends with %v", name, next.err)
		}
		if got := errors.Is(next.err, ErrDrain); got != c.drain {
			t.Errorf("%s: ErrDrain %t", name, got)
		}
		if why != nil && why.Hint == "" && !c.drain {
			t.Errorf("%s: nobody says what to do", name)
		}
		if c.action == tryAgain && next.err == nil {
			t.Errorf("%s: nobody says why", name)
		}
	}
}
