package sink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// sinceOutage is how long requests must have failed before the log says so.
	sinceOutage = time.Second
	// newOutage is how long the brokers must have answered before the log takes an outage for a new
	// one.
	newOutage = time.Minute
)

// Health knows whether the brokers answer. It is a hook of the Kafka clients, which tell it the
// outcome of every connection and request. It logs each change, and again while an outage lasts.
type Health struct {
	Login  string // who logs in, with which password; empty = nobody. Set before it is used
	log    zerolog.Logger
	latest atomic.Pointer[time.Time] // when the brokers answered last; nil = not yet

	// The present outage, under mu. It begins with a request that fails and ends with the next
	// answer.
	mu         sync.Mutex
	answered   bool      // the brokers have answered once
	failing    time.Time // when the outage began; zero = they answer
	reason     string    // of the outage
	logged     bool      // the log tells of the outage
	notice     Notice    // when it does so again
	over       time.Time // when the log last told of the end of one
	reconnects uint64
}

// NewHealth returns a Health that does not know of any broker.
func NewHealth(log zerolog.Logger) *Health { return &Health{log: log} }

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (h *Health) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		h.fails(net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port))), err)
	}
}

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (h *Health) OnBrokerE2E(meta kgo.BrokerMetadata, _ int16, e2e kgo.BrokerE2E) {
	if err := e2e.Err(); err != nil {
		h.fails(net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port))), err)
		return
	}
	h.answers()
}

// answer is when the brokers answered last. For an event whose promise runs now, that is when they
// had it. Reading the clock instead would be the most expensive step of an event.
func (h *Health) answer() time.Time {
	if at := h.latest.Load(); at != nil {
		return *at
	}
	return time.Now()
}

func (h *Health) answers() {
	now := time.Now()
	h.latest.Store(&now)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.logged {
		h.reconnects++
		h.log.Info().Dur("outage_ms", time.Since(h.failing)).Msg("Kafka answers again")
		h.over = now
	}
	// Where one broker answers and another does not, as at an advertised address that cannot be
	// reached, outages follow each other within seconds. To the log they are one.
	if !h.over.IsZero() && now.Sub(h.over) > newOutage {
		h.notice.End()
		h.over = time.Time{}
	}
	h.answered, h.failing, h.reason, h.logged = true, time.Time{}, "", false
}

func (h *Health) fails(addr string, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed) || errors.Is(err, net.ErrClosed) {
		return // we gave up, not the broker
	}
	refused := errors.Is(err, kerr.SaslAuthenticationFailed) || errors.Is(err, kerr.UnsupportedSaslMechanism)
	if refused && h.Login != "" {
		err = fmt.Errorf("the login of %s is refused: %w", h.Login, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.failing.IsZero() {
		h.failing = now
	}
	h.reason = "Kafka does not answer at " + addr + ": " + err.Error()
	// One of several brokers may be restarting: the others answer within that time.
	if (!h.answered || now.Sub(h.failing) >= sinceOutage) && h.notice.Due("", err.Error()) {
		h.logged = true
		h.log.Warn().Str("address", addr).Err(err).Dur("outage_ms", now.Sub(h.failing)).
			Msg("Kafka does not answer: events wait, nothing is lost")
	}
}

// State returns whether the last request succeeded, else why not, and how often the brokers came
// back after an outage.
func (h *Health) State() (up bool, reason string, reconnects uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.answered && h.failing.IsZero(), h.reason, h.reconnects
}

// Ping sends the brokers a request, past the client's cache.
func (s *Sink) Ping(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	_, err := req.RequestWith(ctx, s.client)
	return err
}
