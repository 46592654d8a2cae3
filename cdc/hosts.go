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
	// nextHost is how long an address may be silent before the next one is tried beside it.
	nextHost = time.Second
	// unfitHost is the head start of all others before an address that turned out to be unfit: a standby may let us in sooner than its primary.
	unfitHost = 5 * time.Second
	// lookupTimeout is how long names of hosts may take to become addresses.
	lookupTimeout = 5 * time.Second
)

// Hosts knows which of several addresses of Postgres has answered last. All connections of a process share one, so that an address which is
// dark costs time once, and not at each inspection. Nil remembers nothing.
type Hosts struct {
	mu     sync.Mutex
	last   string          // the address that has answered last
	unfit  string          // one that turned out to be a standby, or another cluster: it comes last
	silent map[string]bool // those that the log has named
}

// candidate is one address of one host, with its attempts: sslmode=prefer makes two.
type candidate struct {
	name string // of the host, as the settings have it
	addr string
	cfg  *pgconn.Config
}

// connect tries the addresses of cfg: the one that has answered last at first, then the others in their order, each after the one before
// has failed or been silent for a moment. The first that lets us in is taken, and the others are given up. adjust, if it is not nil, is
// given the settings of each attempt.
func (h *Hosts) connect(ctx context.Context, cfg *pgconn.Config, log zerolog.Logger, adjust func(*pgconn.Config)) (*pgconn.PgConn, error) {
	candidates, lookupErr := h.candidates(ctx, cfg)
	if len(candidates) == 0 {
		return nil, lookupErr
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	outcomes := make(chan outcome, len(candidates))
	attempt := func(at int) {
		one := candidates[at].cfg
		if adjust != nil {
			adjust(one)
		}
		pg, err := pgconn.ConnectConfig(ctx, one)
		outcomes <- outcome{at, pg, err}
	}
	errs := make([]error, len(candidates)+1) // in the order of the settings; the last is of names
	errs[len(candidates)] = lookupErr
	var began []time.Time // of the attempts that have started
	ended := 0
	next := time.NewTimer(0)
	defer next.Stop()
	for ended < len(candidates) {
		select {
		case <-next.C:
			if n := len(began); n < len(candidates) {
				began = append(began, time.Now())
				go attempt(n)
				next.Reset(h.wait(candidates, n+1))
			}
		case o := <-outcomes:
			ended++
			if o.err != nil {
				errs[o.at] = o.err
				if ended == len(began) || h.wait(candidates, len(began)) == nextHost {
					next.Reset(0)
				}
				continue
			}
			go closeLate(outcomes, len(began)-ended)
			h.answered(candidates, o.at, began, errs, log)
			return o.pg, nil
		}
	}
	return nil, newHostsError(errs)
}

// hostsError is what several addresses have answered. Only if all of them say so it is more than an outage.
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

// disagree reports whether some addresses have answered with what is an outage, and others with what is none.
func disagree(err error) bool {
	var hosts *hostsError
	if !errors.As(err, &hosts) {
		return false
	}
	outage := func(err error) bool { return settingsFault(err) == nil && Transient(err) }
	return slices.ContainsFunc(hosts.errs, outage) && slices.ContainsFunc(hosts.errs, func(err error) bool { return !outage(err) })
}

// wait is how long the candidate at an index waits for those before it.
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

// outcome is that of an attempt to connect to a candidate.
type outcome struct {
	at  int
	pg  *pgconn.PgConn
	err error
}

// closeLate closes the connections of attempts that were too late.
func closeLate(outcomes <-chan outcome, left int) {
	for range left {
		if late := <-outcomes; late.pg != nil {
			closing, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = late.pg.Close(closing) // nothing was asked of it
			cancel()
		}
	}
}

// answered notes who has answered, and says once who has not.
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
		if i == at || h.silent[c.addr] || errs[i] != nil && !isSilence(errs[i]) || errs[i] == nil && time.Since(start) < nextHost {
			continue
		}
		if h.silent == nil {
			h.silent = map[string]bool{}
		}
		h.silent[c.addr] = true
		log.Warn().Str("address", c.addr).Str("host", c.name).Str("instead", h.last).
			Msg("Postgres does not answer at one of its addresses: another one is used, nothing is lost")
	}
}

func isSilence(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

// Unfit says that the server which answered last is none that a stream can come from: another address may have it.
func (h *Hosts) Unfit() {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != "" {
		h.last, h.unfit = "", h.last
	}
}

// Nearest narrows settings to the address that has answered last, if there is one.
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
	cfg.Host, cfg.Port, cfg.TLSConfig, cfg.Fallbacks, cfg.LookupFunc = one.Host, one.Port, one.TLSConfig, one.Fallbacks, one.LookupFunc
}

// candidates lists the addresses of cfg in the order in which they are to be tried. The error is of names that have no address.
func (h *Hosts) candidates(ctx context.Context, cfg *pgconn.Config) ([]candidate, error) {
	attempts := append([]*pgconn.FallbackConfig{{Host: cfg.Host, Port: cfg.Port, TLSConfig: cfg.TLSConfig}}, cfg.Fallbacks...)
	var hosts [][]*pgconn.FallbackConfig // by host, with its attempts
	for _, a := range attempts {
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

// lookUp returns the addresses of a host; a socket is its own.
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
		one.Fallbacks = append(one.Fallbacks, &pgconn.FallbackConfig{Host: a.Host, Port: a.Port, TLSConfig: a.TLSConfig})
	}
	if one.LookupFunc != nil {
		one.LookupFunc = func(context.Context, string) ([]string, error) { return []string{address}, nil }
	}
	name := host[0].Host
	addr := net.JoinHostPort(address, strconv.Itoa(int(host[0].Port)))
	return candidate{name, addr, one}
}

// order puts the address that has answered last first, and the one that is unfit last.
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
