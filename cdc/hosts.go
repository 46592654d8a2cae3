package cdc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rs/zerolog"
)

const (
	// nextHost is how long an address may be silent before we try the next one beside it.
	nextHost = time.Second
	// unfitHost is the head start of all others over an address that is unfit: a standby may accept
	// a connection sooner than its primary.
	unfitHost = 5 * time.Second
	// lookupTimeout bounds the resolution of host names.
	lookupTimeout = 5 * time.Second
)

// Hosts remembers which of several addresses of Postgres answered last. All connections of a
// process share one, so that an address that does not answer costs time once, not at each
// inspection. Nil remembers nothing.
type Hosts struct {
	mu     sync.Mutex
	last   string          // the address that answered last: tried first
	unfit  string          // an address that led to a standby or another cluster: tried last
	silent map[string]bool // the addresses that the log has reported as silent
}

// candidate is one address of one host. Its settings have all attempts: with sslmode=prefer there
// are two.
type candidate struct {
	name string // the host, as the settings name it
	addr string
	cfg  *pgconn.Config
}

// connect tries the addresses of cfg: first the one that answered last, then the others in their
// order, each once the one before has failed or been silent for a moment. It returns the first
// connection that succeeds, and gives up the others. adjust, unless it is nil, gets the settings of
// each attempt.
func (h *Hosts) connect(
	ctx context.Context, cfg *pgconn.Config, log zerolog.Logger, adjust func(*pgconn.Config),
) (*pgconn.PgConn, error) {
	candidates, lookupErr := h.candidates(ctx, cfg)
	if len(candidates) == 0 {
		return nil, lookupErr
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	attempts := make(chan attempt, len(candidates))
	try := func(at int) {
		one := candidates[at].cfg
		if adjust != nil {
			adjust(one)
		}
		pg, err := pgconn.ConnectConfig(ctx, one)
		attempts <- attempt{at, pg, err}
	}
	errs := make([]error, len(candidates)+1) // by candidate; the last one is of the lookup
	errs[len(candidates)] = lookupErr
	var began []time.Time // by candidate, of those that were tried
	ended := 0
	next := time.NewTimer(0)
	defer next.Stop()
	for ended < len(candidates) {
		select {
		case <-next.C:
			if n := len(began); n < len(candidates) {
				began = append(began, time.Now())
				go try(n)
				next.Reset(h.wait(candidates, n+1))
			}
		case a := <-attempts:
			ended++
			if a.err != nil {
				errs[a.at] = a.err
				if ended == len(began) || h.wait(candidates, len(began)) == nextHost {
					next.Reset(0)
				}
				continue
			}
			go closeLate(attempts, len(began)-ended)
			h.answered(candidates, a.at, began, errs, log)
			return a.pg, nil
		}
	}
	return nil, newHostsError(errs)
}

// hostsError holds what several addresses answered. It is an outage unless all of them say
// otherwise.
type hostsError struct{ errs []error }

func newHostsError(errs []error) error {
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) == 1 {
		return errs[0]
	}
	return &hostsError{errs}
}

func (e *hostsError) Error() string   { return errors.Join(e.errs...).Error() }
func (e *hostsError) Unwrap() []error { return e.errs }

// disagree reports whether some addresses answered with an outage, and others with something
// permanent.
func disagree(err error) bool {
	var hosts *hostsError
	if !errors.As(err, &hosts) {
		return false
	}
	outage := func(err error) bool { return settingsFault(err) == nil && Transient(err) }
	permanent := func(err error) bool { return !outage(err) }
	return slices.ContainsFunc(hosts.errs, outage) && slices.ContainsFunc(hosts.errs, permanent)
}

// wait returns how long the candidate at an index waits for those before it.
func (h *Hosts) wait(candidates []candidate, at int) time.Duration {
	if h == nil || at >= len(candidates) {
		return nextHost
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if candidates[at].addr == h.unfit {
		return unfitHost
	}
	return nextHost
}

// attempt is how an attempt to connect to a candidate ended.
type attempt struct {
	at  int
	pg  *pgconn.PgConn
	err error
}

// closeLate closes the connections of attempts that came too late.
func closeLate(attempts <-chan attempt, left int) {
	for range left {
		if late := <-attempts; late.pg != nil {
			closing, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = late.pg.Close(closing) // it was never used
			cancel()
		}
	}
}

// answered remembers the candidate that answered, and logs once which ones did not.
func (h *Hosts) answered(candidates []candidate, at int, began []time.Time, errs []error, log zerolog.Logger) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last = candidates[at].addr
	delete(h.silent, h.last)
	for i, start := range began {
		c := candidates[i]
		silent := errs[i] == nil && time.Since(start) >= nextHost || isSilence(errs[i])
		if i == at || !silent || h.silent[c.addr] {
			continue
		}
		if h.silent == nil {
			h.silent = map[string]bool{}
		}
		h.silent[c.addr] = true
		log.Warn().Str("address", c.addr).Str("host", c.name).Str("instead", h.last).
			Msg("Postgres does not answer at one of its addresses: walpost uses another one, and nothing is lost")
	}
}

func isSilence(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

// MarkUnfit says that no stream can come from the server that answered last: another address may
// lead to the right one.
func (h *Hosts) MarkUnfit() {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != "" {
		h.last, h.unfit = "", h.last
	}
}

// Nearest narrows cfg to the address that answered last, if there is one.
func (h *Hosts) Nearest(ctx context.Context, cfg *pgconn.Config) {
	if h == nil {
		return
	}
	candidates, _ := h.candidates(ctx, cfg)
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(candidates) == 0 || candidates[0].addr != h.last {
		return
	}
	one := candidates[0].cfg
	cfg.Host, cfg.Port, cfg.TLSConfig = one.Host, one.Port, one.TLSConfig
	cfg.Fallbacks, cfg.LookupFunc = one.Fallbacks, one.LookupFunc
}

// candidates lists the addresses of cfg in the order in which to try them. The error is of the
// names that have no address.
func (h *Hosts) candidates(ctx context.Context, cfg *pgconn.Config) ([]candidate, error) {
	first := &pgconn.FallbackConfig{Host: cfg.Host, Port: cfg.Port, TLSConfig: cfg.TLSConfig}
	var hosts [][]*pgconn.FallbackConfig // by host, with its attempts
	for _, a := range append([]*pgconn.FallbackConfig{first}, cfg.Fallbacks...) {
		if n := len(hosts); n > 0 && hosts[n-1][0].Host == a.Host && hosts[n-1][0].Port == a.Port {
			hosts[n-1] = append(hosts[n-1], a)
		} else {
			hosts = append(hosts, []*pgconn.FallbackConfig{a})
		}
	}
	addresses, errs := make([][]string, len(hosts)), make([]error, len(hosts))
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var wait sync.WaitGroup
	for i, host := range hosts {
		wait.Go(func() { addresses[i], errs[i] = lookUp(ctx, cfg, host[0].Host) })
	}
	wait.Wait()
	var list []candidate
	for i, host := range hosts {
		for _, address := range addresses[i] {
			list = append(list, newCandidate(cfg, host, address))
		}
	}
	h.order(list)
	return list, errors.Join(errs...)
}

// lookUp returns the addresses of a host; a socket is its own address.
func lookUp(ctx context.Context, cfg *pgconn.Config, host string) ([]string, error) {
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || cfg.LookupFunc == nil {
		return []string{host}, nil
	}
	addresses, err := cfg.LookupFunc(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("hostname resolving error: %w", err)
	}
	return addresses, nil
}

func newCandidate(cfg *pgconn.Config, host []*pgconn.FallbackConfig, address string) candidate {
	one := cfg.Copy()
	one.Host, one.Port, one.TLSConfig, one.Fallbacks = host[0].Host, host[0].Port, host[0].TLSConfig, nil
	for _, a := range host[1:] {
		fallback := &pgconn.FallbackConfig{Host: a.Host, Port: a.Port, TLSConfig: a.TLSConfig}
		one.Fallbacks = append(one.Fallbacks, fallback)
	}
	if one.LookupFunc != nil {
		one.LookupFunc = func(context.Context, string) ([]string, error) { return []string{address}, nil }
	}
	name := host[0].Host
	addr := net.JoinHostPort(address, strconv.Itoa(int(host[0].Port)))
	return candidate{name, addr, one}
}

// order puts the address that answered last first, and the unfit one last.
func (h *Hosts) order(list []candidate) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	rank := func(c candidate) int {
		switch c.addr {
		case h.last:
			return 0
		case h.unfit:
			return 2
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b candidate) int { return rank(a) - rank(b) })
}
