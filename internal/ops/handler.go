package ops

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
)

func newHandler(source Source, latency prometheus.Collector, log zerolog.Logger) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(source), latency, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		writeText(w, http.StatusOK, "alive")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if s := source.Snapshot(); !s.ready() {
			writeText(w, http.StatusServiceUnavailable, strings.Join(s.Reasons, "\n"))
			return
		}
		writeText(w, http.StatusOK, "ready")
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		writeStatus(w, newStatus(source.Snapshot()), log)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		s := source.Snapshot()
		const pages = "/livez\n/readyz\n/metrics\n/status"
		writeText(w, http.StatusOK, fmt.Sprintf("walpost %s: %s\n\n%s", s.Version, s.State, pages))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

func writeText(w http.ResponseWriter, code int, text string) {
	plainHeaders(w, "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, text) // an error means that the client has gone
}

func writeStatus(w http.ResponseWriter, status Status, log zerolog.Logger) {
	body, err := json.MarshalIndent(status, "", "  ")
	if err != nil {
		log.Error().Err(err).Msg("cannot write the status")
		writeText(w, http.StatusInternalServerError, "the status cannot be written")
		return
	}
	plainHeaders(w, "application/json")
	_, _ = w.Write(append(body, '\n'))
}

func plainHeaders(w http.ResponseWriter, contentType string) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}
