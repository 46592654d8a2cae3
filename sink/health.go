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

// sinceOutage is how long the brokers must have failed before it is said.
const sinceOutage = time.Second

// settled is how long the brokers have to answer before a new outage is said anew.
const settled = time.Minute

// Health knows whether the brokers answer, from what every request of the clients meets that carry it as a hook. It says
// so once a change, and again while it lasts.
type Health struct {
	Login  string // who logs in, with which password; empty = nobody. Set before it is used
	log    zerolog.Logger
	latest atomic.Pointer[time.Time] // when the brokers answered last; nil = the client has not said

	mu         sync.Mutex
	answered   bool      // they have answered once
	failing    time.Time // since when every request fails; zero = they answer
	said       bool      // the outage was said
	notice     Notice    // when it is said again
	over       time.Time // when an outage was last said to be over
	reason     string
	reconnects uint64
}

// NewHealth returns a Health that has not heard of any broker.
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

// answer is when the brokers answered last: of an event whose promise is called now, when they had it. A clock that is read for each event
// is the dearest thing that is done for one.
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
	if h.said {
		h.reconnects++
		h.log.Info().Dur("outage_ms", time.Since(h.failing)).Msg("Kafka answers again")
		h.over = now
	}
	// Where one broker answers and another does not, as at an address that is advertised and cannot be reached, outages follow each
	// other within seconds. They are one to the log.
	if !h.over.IsZero() && now.Sub(h.over) > settled {
		h.notice.End()
		h.over = time.Time{}
	}
	h.answered, h.failing, h.said, h.reason = true, time.Time{}, false, ""
}

func (h *Health) fails(addr string, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, kgo.ErrClientClosed) || errors.Is(err, net.ErrClosed) {
		return // it was we who gave up
	}
	if h.Login != "" && (errors.Is(err, kerr.SaslAuthenticationFailed) || errors.Is(err, kerr.UnsupportedSaslMechanism)) {
		err = fmt.Errorf("the login of %s is refused: %w", h.Login, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.failing.IsZero() {
		h.failing = now
	}
	h.reason = "Kafka does not answer at " + addr + ": " + err.Error()
	// One broker of several may be restarting: the others answer within that time.
	if (!h.answered || now.Sub(h.failing) >= sinceOutage) && h.notice.Due("", err.Error()) {
		h.said = true
		h.log.Warn().Str("address", addr).Err(err).Dur("outage_ms", now.Sub(h.failing)).Msg("Kafka does not answer: events wait, nothing is lost")
	}
}

// Look returns whether the last word of the brokers was no error, else why, and how often they came back.
func (h *Health) Look() (up bool, reason string, reconnects uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.answered && h.failing.IsZero(), h.reason, h.reconnects
}

// Ping asks the brokers for a sign of life, past the client's cache.
func (s *Sink) Ping(ctx context.Context) error {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	_, err := req.RequestWith(ctx, s.client)
	return err
}
