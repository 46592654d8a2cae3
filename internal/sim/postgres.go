package sim

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/walpost/walpost/cdc"
)

// system is the identifier of the simulated cluster.
const system = "7000000000000000001"

// walSenderTimeout is the setting of that name.
const walSenderTimeout = 6 * time.Second

// postgres serves a wal by Postgres' protocol.
type postgres struct {
	*wal
	net    *network
	random *rand.Rand // of the walsender
	addr   string
	ln     net.Listener
	serve  sync.WaitGroup

	onStatus func(flushed cdc.LSN)

	state   sync.Mutex
	ending  bool // shuts down
	active  *walsender
	lastPID uint32
	starts  int // of streams
}

func newPostgres(n *network, random *rand.Rand) *postgres {
	p := &postgres{wal: newWAL(), net: n, random: random, onStatus: func(cdc.LSN) {}}
	p.ln, _ = n.listen("", "")
	p.addr = p.ln.Addr().String()
	p.serve.Go(func() {
		for {
			conn, err := p.ln.Accept()
			if err != nil {
				return
			}
			p.serve.Go(func() {
				defer func() { _ = conn.Close() }()
				p.session(conn)
			})
		}
	})
	return p
}

func (p *postgres) close() {
	_ = p.ln.Close()
	p.net.cut(p.addr)
	p.serve.Wait()
}

// session serves one connection until it ends.
func (p *postgres) session(conn net.Conn) {
	b := pgproto3.NewBackend(conn, conn)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	p.state.Lock()
	p.lastPID++
	pid, ending := p.lastPID, p.ending
	p.state.Unlock()
	if ending {
		b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P03", Message: "the database system is shutting down"})
		_ = b.Flush()
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "17.0"})
	b.Send(&pgproto3.BackendKeyData{ProcessID: pid, SecretKey: []byte{0, 0, 0, 1}})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	for b.Flush() == nil {
		m, err := b.Receive()
		if err != nil {
			return
		}
		query, ok := m.(*pgproto3.Query)
		if !ok {
			return // Terminate
		}
		if strings.HasPrefix(query.String, "START_REPLICATION") {
			if !p.replicate(conn, b, pid, query.String) {
				return
			}
			continue
		}
		p.answer(b, query.String)
	}
}

func rows(b *pgproto3.Backend, columns int, values ...[]string) {
	description := &pgproto3.RowDescription{}
	for i := range columns {
		description.Fields = append(description.Fields, pgproto3.FieldDescription{Name: []byte(fmt.Sprint("c", i)), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1})
	}
	b.Send(description)
	for _, row := range values {
		data := &pgproto3.DataRow{}
		for _, v := range row {
			data.Values = append(data.Values, []byte(v))
		}
		b.Send(data)
	}
	b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT")})
}

func (p *postgres) answer(b *pgproto3.Backend, query string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case strings.HasPrefix(query, "IDENTIFY_SYSTEM"):
		rows(b, 4, []string{system, fmt.Sprint(p.timeline), p.end.String(), "app"})
	case strings.HasPrefix(query, "TIMELINE_HISTORY"):
		rows(b, 2, []string{"history", strings.Join(p.history, "\n")})
	case strings.Contains(query, "transaction_timeout"): // it has none
		rows(b, 1)
	case strings.Contains(query, "wal_sender_timeout"):
		rows(b, 2, []string{fmt.Sprint(walSenderTimeout.Milliseconds()), "f"})
	case strings.Contains(query, "pg_replication_slots s"):
		p.inspect(b)
	default:
		b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "42601", Message: "the simulation does not know " + query})
	}
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
}

// inspect answers the five questions of an inspection. The mutex of the wal is held.
func (p *postgres) inspect(b *pgproto3.Backend) {
	p.state.Lock()
	active, pid := p.active != nil, uint32(0)
	if active {
		pid = p.active.pid
	}
	p.state.Unlock()
	rows(b, 3, []string{p.end.String(), fmt.Sprintf("%08X", p.timeline), system})
	if p.slot {
		rows(b, 1, []string{fmt.Sprintf(`{"plugin": "pgoutput", "slot_type": "logical", "active": %t, "active_pid": %d, "restart_lsn": "%s", "confirmed_flush_lsn": "%s",
			"wal_status": "reserved", "same_database": true, "database": "app"}`, active, pid, p.confirmed, p.confirmed)})
	} else {
		rows(b, 1)
	}
	tables := `[]`
	if p.published {
		tables = fmt.Sprintf(`[{"schemaname": "public", "tablename": "outbox", "attnames": ["id", "aggregatetype", "aggregateid", "payload"], "identity": "%d"}]`, p.altered)
	}
	rows(b, 1, []string{fmt.Sprintf(`{"identity": "1/%d", "all_tables": false, "insert": true, "via_root": true, "tables": %s}`, p.altered, tables)})
	rows(b, 1, []string{`{"schema": "public", "name": "outbox", "oid": 16384, "kind": "r", "unlogged": "", "columns": [{"name": "id", "type": 25}, {"name": "aggregatetype", "type": 25},
		{"name": "aggregateid", "type": 25}, {"name": "payload", "type": 25}]}`})
	rows(b, 1)
	rows(b, 1)
}

var startReplication = regexp.MustCompile(`^START_REPLICATION SLOT walpost LOGICAL ([0-9A-F]+/[0-9A-F]+) `)

// replicate takes the slot and streams. It reports whether the session may go on.
func (p *postgres) replicate(conn net.Conn, b *pgproto3.Backend, pid uint32, query string) bool {
	found := startReplication.FindStringSubmatch(query)
	if found == nil {
		return false
	}
	from, err := pglogrepl.ParseLSN(found[1])
	if err != nil {
		return false
	}
	refuse := func(code, message string) bool {
		b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code, Message: message})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		return true
	}
	p.mu.Lock()
	slot := p.slot
	pos, life := max(from, p.confirmed), p.life
	p.mu.Unlock()
	if !slot {
		return refuse("42704", `replication slot "walpost" does not exist`)
	}
	s := &walsender{p: p, conn: conn, b: b, pid: pid, life: life, pos: pos, sent: pos, ended: make(chan struct{}), ping: make(chan struct{}, 1)}
	p.state.Lock()
	holder := p.active
	if holder == nil {
		p.active = s
		p.starts++
	}
	p.state.Unlock()
	if holder != nil {
		return refuse("55006", fmt.Sprintf(`replication slot "walpost" is active for PID %d`, holder.pid))
	}
	s.run()
	p.state.Lock()
	p.active = nil
	p.state.Unlock()
	return false
}

// xlogData is the envelope of a message of the output plugin.
func xlogData(lsn cdc.LSN, message []byte) []byte {
	b := append(make([]byte, 0, 25+len(message)), 'w')
	b = binary.BigEndian.AppendUint64(b, uint64(lsn))
	b = binary.BigEndian.AppendUint64(b, uint64(lsn))
	b = binary.BigEndian.AppendUint64(b, uint64(cdc.ServerTime(time.Now())))
	return append(b, message...)
}

// messages are the stream's form of a transaction.
func (t txn) messages(relation bool) [][]byte {
	begin := binary.BigEndian.AppendUint64([]byte{'B'}, uint64(t.commit))
	begin = binary.BigEndian.AppendUint64(begin, uint64(cdc.ServerTime(t.at)))
	begin = binary.BigEndian.AppendUint32(begin, 700)
	list := [][]byte{xlogData(t.commit-1, begin)}
	if relation {
		list = append(list, xlogData(0, relationMessage()))
	}
	for _, r := range t.rows {
		if r.skipped {
			continue
		}
		m := []byte{'I', 0, 0, 0x40, 0, 'N', 0, 4}
		for _, column := range []string{r.id, cmp.Or(r.topic, "orders"), r.key, strings.Repeat("x", r.size)} {
			m = append(m, 't')
			m = binary.BigEndian.AppendUint32(m, uint32(len(column)))
			m = append(m, column...)
		}
		list = append(list, xlogData(t.commit-1, m))
	}
	commit := binary.BigEndian.AppendUint64([]byte{'C', 0}, uint64(t.commit))
	commit = binary.BigEndian.AppendUint64(commit, uint64(t.end))
	commit = binary.BigEndian.AppendUint64(commit, uint64(cdc.ServerTime(t.at)))
	return append(list, xlogData(t.end, commit))
}

func relationMessage() []byte {
	m := append([]byte{'R', 0, 0, 0x40, 0}, "public\x00outbox\x00d\x00\x04"...)
	for _, column := range []string{"id", "aggregatetype", "aggregateid", "payload"} {
		m = append(append(append(m, 0), column...), 0)
		m = binary.BigEndian.AppendUint32(m, 25)
		m = binary.BigEndian.AppendUint32(m, 0xFFFFFFFF)
	}
	return m
}

func (p *postgres) setEnding(ending bool) {
	p.state.Lock()
	defer p.state.Unlock()
	p.ending = ending
	p.mu.Lock()
	defer p.mu.Unlock()
	p.announce()
}

// started is how many streams there were.
func (p *postgres) started() int {
	p.state.Lock()
	defer p.state.Unlock()
	return p.starts
}

// streaming reports whether a walsender runs.
func (p *postgres) streaming() bool {
	p.state.Lock()
	defer p.state.Unlock()
	return p.active != nil
}
