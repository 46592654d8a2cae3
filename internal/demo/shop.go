package demo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// shop is the order service. It knows nothing of Kafka: it inserts its events beside what they are
// about.
type shop struct {
	conn   *pgx.Conn
	ledger *ledger
	screen *screen

	orders       int      // placed, also those that were rolled back
	customers    []string // registered, as long as the shop remembers them
	open         []order
	transactions int
	doomed       int // the number of the transaction that will be rolled back
}

type order struct {
	id, customer string
	cents        int
	paid         bool
}

// event is a row of the outbox.
type event struct {
	id, aggregate, key, kind string
	payload                  map[string]any
}

// oneIn: one of so many transactions is rolled back.
const oneIn = 8

// maxCustomers is how many customers the shop remembers, however long it runs.
const maxCustomers = 1000

// transactionTimeout bounds a transaction. The end of the demo does not cut one off: whether it
// committed would not be known.
const transactionTimeout = 10 * time.Second

// run writes about that many events per second until ctx ends.
func (s *shop) run(ctx context.Context, rate float64) error {
	next := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		n, err := s.transaction(ctx)
		if err != nil {
			return err
		}
		next = next.Add(time.Duration(float64(n) / rate * float64(time.Second)))
		if late := time.Since(next); late > time.Second {
			next = time.Now() // the server is slower than the rate: no burst to catch up
		}
		timer.Reset(time.Until(next))
	}
}

// transaction does one piece of business and returns how many events it wrote, rolled back or not.
func (s *shop) transaction(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), transactionTimeout)
	defer cancel()
	tx, err := s.conn.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback(ctx) }() // without effect after the end of the transaction
	work := s.choose()
	if _, err := tx.Exec(ctx, work.sql, work.args...); err != nil {
		return 0, err
	}
	for _, e := range work.events {
		if err := insertEvent(ctx, tx, e); err != nil {
			return 0, err
		}
	}
	if s.isDoomed() {
		if err := tx.Rollback(ctx); err != nil {
			return 0, err
		}
		s.ledger.rollBack(work.events)
		s.screen.rolledBack(time.Now(), work.events, work.excuse)
		return len(work.events), nil
	}
	s.ledger.commit(work.events, time.Now())
	if err := tx.Commit(ctx); err != nil {
		return 0, err
	}
	work.done()
	return len(work.events), nil
}

// insertEvent is all that a service has to do.
func insertEvent(ctx context.Context, tx pgx.Tx, e event) error {
	payload, err := json.Marshal(e.payload)
	if err != nil {
		return fmt.Errorf("write payload: %w", err)
	}
	trace := fmt.Sprintf("00-%x-%x-01", randomBytes(16), randomBytes(8))
	headers, err := json.Marshal(map[string]string{"traceparent": trace})
	if err != nil {
		return fmt.Errorf("write headers: %w", err)
	}
	_, err = tx.Exec(ctx, "INSERT INTO "+Table+" (id, aggregatetype, aggregateid, type, payload, headers) "+
		"VALUES ($1, $2, $3, $4, $5, $6)",
		e.id, e.aggregate, e.key, e.kind, string(payload), string(headers))
	return err
}

// isDoomed picks one of each oneIn transactions at random, and never the very first.
func (s *shop) isDoomed() bool {
	if s.transactions%oneIn == 0 {
		s.doomed = s.transactions + 1 + mathrand.N(oneIn-1)
	}
	s.transactions++
	return s.transactions-1 == s.doomed
}

// work is one transaction: a change of the business table and the events that tell of it.
type work struct {
	sql    string
	args   []any
	events []event
	excuse string // why it may be rolled back
	done   func() // remembers the change once it is committed
}

// choose keeps a handful of orders open and moves them on.
func (s *shop) choose() work {
	if len(s.open) < 3 || len(s.open) < 20 && mathrand.N(5) < 2 {
		return s.place()
	}
	at := mathrand.N(len(s.open))
	switch {
	case s.open[at].paid:
		return s.closeOrder(at, "shipped", "OrderShipped", "out of stock",
			map[string]any{"carrier": "Post", "parcels": 1})
	case mathrand.N(6) == 0:
		return s.closeOrder(at, "cancelled", "OrderCancelled", "already shipped",
			map[string]any{"reason": "changed my mind"})
	default:
		return s.pay(at)
	}
}

func (s *shop) place() work {
	s.orders++
	o := order{id: fmt.Sprintf("order-%d", 1000+s.orders), cents: 500 + mathrand.N(20000)}
	var events []event
	isNew := len(s.customers) == 0 || mathrand.N(3) == 0
	if isNew {
		o.customer = fmt.Sprintf("customer-%d", s.orders)
		events = append(events, newEvent("customer", o.customer, "CustomerRegistered",
			map[string]any{"name": fmt.Sprintf("Customer %d", s.orders), "country": "SE"}))
	} else {
		o.customer = s.customers[mathrand.N(len(s.customers))]
	}
	events = append(events, newEvent("order", o.id, "OrderPlaced",
		map[string]any{"order": o.id, "customer": o.customer, "total_cents": o.cents}))
	return work{
		sql:    "INSERT INTO " + Name + ".orders (id, customer, state, total_cents) VALUES ($1, $2, 'placed', $3)",
		args:   []any{o.id, o.customer, o.cents},
		events: events, excuse: "basket expired",
		done: func() {
			s.open = append(s.open, o)
			if isNew && len(s.customers) < maxCustomers {
				s.customers = append(s.customers, o.customer)
			}
		},
	}
}

func (s *shop) pay(at int) work {
	o := s.open[at]
	payment := "payment-" + strings.TrimPrefix(o.id, "order-")
	details := map[string]any{"payment": payment, "order": o.id, "cents": o.cents}
	return work{
		sql: "UPDATE " + Name + ".orders SET state = 'paid' WHERE id = $1", args: []any{o.id},
		events: []event{
			newEvent("payment", payment, "PaymentAuthorized", details),
			newEvent("payment", payment, "PaymentCaptured", details),
			newEvent("order", o.id, "OrderPaid", map[string]any{"order": o.id, "payment": payment}),
		},
		excuse: "card declined",
		done:   func() { s.open[at].paid = true },
	}
}

func (s *shop) closeOrder(at int, state, kind, excuse string, details map[string]any) work {
	o := s.open[at]
	details["order"] = o.id
	return work{
		sql: "UPDATE " + Name + ".orders SET state = $2 WHERE id = $1", args: []any{o.id, state},
		events: []event{newEvent("order", o.id, kind, details)}, excuse: excuse,
		done: func() { s.open = append(s.open[:at], s.open[at+1:]...) },
	}
}

func newEvent(aggregate, key, kind string, payload map[string]any) event {
	b := randomBytes(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // a random UUID is version 4
	return event{
		id:        fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]),
		aggregate: aggregate, key: key, kind: kind, payload: payload,
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	// It never fails: the runtime ends the program first.
	_, _ = rand.Read(b)
	return b
}
