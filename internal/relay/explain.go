package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// unusual is how long the brokers may take before they are asked why.
const unusual = 5 * time.Second

// inquiry is what the brokers are asked when they do not do what they were asked for.
func (r *Relay) inquiry(h *handover) Inquiry {
	q := Inquiry{Kafka: r.cfg.Kafka, Dial: r.cfg.Dial, StateTopic: r.cfg.StateTopic}
	if r.cfg.ExactlyOnce {
		q.ID = TransactionalID(r.source(h.system))
	}
	return q
}

// explain asks the brokers about an outage of theirs. Between two sessions nobody waits for it, and
// a stop ends it.
func (r *Relay) explain(ctx context.Context, h handover, o outcome) error {
	if r.cfg.NewStore != nil || !o.atKafka {
		return o.err
	}
	if errors.Is(o.err, kerr.SaslAuthenticationFailed) && r.cfg.Login != "" {
		return fmt.Errorf("the login of %s is refused: %w", r.cfg.Login, o.err)
	}
	return r.inquiry(&h).Explain(ctx, o.err)
}

// unexplained reports whether err has an explanation that was not said yet.
func (s *said) unexplained(err error) bool {
	var inquiry *InquiryError
	return errors.As(err, &inquiry) && s.news(strings.Join(inquiry.Found, "; "))
}

// news reports whether an explanation was not said yet, and notes that it is said now.
func (s *said) news(found string) bool {
	before := s.explained
	s.explained = found
	return found != before
}

// patiently is called before a start waits for the brokers: if that takes unusually long, it asks
// them why. The caller calls what it returns when the wait is over.
func (s *session) patiently(ctx context.Context) (over func()) {
	if s.r.cfg.NewStore != nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	asking.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(unusual):
		}
		found := strings.Join(s.r.inquiry(&s.handover).Find(ctx), "; ")
		if found == "" || ctx.Err() != nil {
			return
		}
		s.r.waitsFor(found)
		if s.said.news(found) {
			s.log.Warn().Str("reason", found).Msg("the stream waits for Kafka, nothing is lost")
		}
	})
	return func() { cancel(); asking.Wait() }
}

// inquire asks the brokers why events or their position wait, and says it once.
func (s *session) inquire(ctx context.Context) {
	if s.r.cfg.NewStore != nil || !s.waiting() {
		s.explained.Store(nil)
		return
	}
	found := strings.Join(s.r.inquiry(&s.handover).Find(ctx), "; ")
	if found == "" || ctx.Err() != nil {
		s.explained.Store(nil)
		return
	}
	if before := s.explained.Swap(&found); before == nil || *before != found {
		s.log.Warn().Str("reason", found).Msg("events or their position wait, nothing is lost")
	}
}

// waiting reports whether something has waited for the brokers for unusually long.
func (s *session) waiting() bool {
	if since := s.saving.Load(); since != nil && time.Since(*since) > unusual {
		return true
	}
	return s.out.Idle() > unusual
}
