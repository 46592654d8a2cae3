package ops

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Server answers over HTTP. Start and Close are called once each, in this order, by its owner.
type Server struct {
	addr     string
	http     *http.Server
	log      zerolog.Logger
	listener net.Listener
	done     chan struct{} // Closed when the serving goroutine has ended.
}

// New makes a server for host:port; port 0 takes a free one. An empty address makes one that never
// listens. Latency is what NewLatency made.
func New(addr string, source Source, latency prometheus.Collector, log zerolog.Logger) *Server {
	log = log.With().Str("component", "ops").Logger()
	return &Server{
		addr: addr,
		log:  log,
		done: make(chan struct{}),
		http: &http.Server{
			Handler:           newHandler(source, latency, log),
			ReadHeaderTimeout: 5 * time.Second,
			ReadTimeout:       10 * time.Second,
			WriteTimeout:      30 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    16 << 10,
		},
	}
}

// Start listens and returns; the answers come from a goroutine that Close ends. The error is that
// of listening, such as a port in use.
func (s *Server) Start(ctx context.Context) error {
	if s.addr == "" {
		close(s.done)
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.addr)
	if err != nil {
		close(s.done)
		return fmt.Errorf("listen for HTTP on %s: %w", s.addr, err)
	}
	s.listener = listener
	s.log.Info().Str("address", s.Addr()).Msg("serving metrics, health and status")
	go func() {
		defer close(s.done)
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error().Err(err).Msg("no longer serving metrics, health and status")
		}
	}()
	return nil
}

// Addr is the address that is listened on, with the port that was taken; empty before Start and
// when off.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Close lets requests end until ctx does, then cuts them off. It returns when nothing is left.
// After a Start that failed it does nothing.
func (s *Server) Close(ctx context.Context) error {
	if s.listener == nil {
		return nil
	}
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("stop HTTP server: %w", err), s.http.Close())
	}
	<-s.done
	return err
}
