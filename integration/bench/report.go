package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report prints the tables, and the same as JSON.
type report struct {
	json   *os.File // nil: nobody wants it
	header string   // of the table that is being printed
}

func (r *report) machine() {
	model := "unknown processor"
	content, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(content)) {
		if rest, ok := strings.CutPrefix(line, "model name"); ok {
			model = strings.TrimSpace(strings.TrimLeft(rest, "\t :"))
			break
		}
	}
	fmt.Printf("%d cores of %s, %s; %.0f %% busy before the first server was started\n", runtime.NumCPU(),
		model, runtime.Version(), 100*quiet())
}

// line prints a line of a table, under its header if the one before was of another.
func (r *report) line(header, line string) {
	if r.header != header {
		fmt.Printf("\n%s\n", header)
		r.header = header
	}
	fmt.Println(line)
}

func (r *report) write(values map[string]any) {
	if r.json == nil {
		return
	}
	line, err := json.Marshal(values)
	if err == nil {
		_, err = r.json.Write(append(line, '\n'))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: write measurements:", err)
	}
}

func median[T any](turns []T, f func(T) float64) float64 {
	values := make([]float64, len(turns))
	for i, turn := range turns {
		values[i] = f(turn)
	}
	slices.Sort(values)
	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}
	return values[len(values)/2]
}

// drain reports the turns of one contender. Its ratio is to the best reader of the same run.
func (r *report) drain(name, contender string, turns []drained, all [][]drained, busy float64) {
	rate := median(turns, drained.rate)
	best := 0.0
	for _, others := range all {
		if others[0].walsender > 0 && others[0].broker == 0 { // a reader
			best = max(best, median(others, drained.rate))
		}
	}
	per := func(f func(drained) time.Duration) float64 {
		return median(turns, func(d drained) float64 { return d.perRow(f(d)) })
	}
	ratio := 0.0 // no reader, no ratio
	if best > 0 {
		ratio = rate / best
	}
	own := per(func(d drained) time.Duration { return d.own })
	walsender := per(func(d drained) time.Duration { return d.walsender })
	broker := per(func(d drained) time.Duration { return d.broker })
	whole := median(turns, func(d drained) float64 { return float64(d.rows) / d.whole.Seconds() })
	allocs := median(turns, func(d drained) float64 { return d.mallocs / float64(d.rows) })
	peak := median(turns, func(d drained) float64 { return d.peakMiB })
	stolen := median(turns, func(d drained) float64 { return d.stolen })
	lowest, highest := turns[0].rate(), turns[0].rate()
	for _, d := range turns {
		lowest, highest = min(lowest, d.rate()), max(highest, d.rate())
	}
	r.line(fmt.Sprintf("%-34s %-26s %9s %15s %6s %9s %7s %9s %7s %7s %6s %s", "DRAIN", "", "rows/s",
		"least..most", "ratio", "+start", "us/row", "walsender", "broker", "allocs", "MiB", "busy"),
		fmt.Sprintf("%-34s %-26s %9.0f %15s %6.2f %9.0f %7.2f %9.2f %7.2f %7.2f %6.0f %2.0f%%", name, contender, rate,
			fmt.Sprintf("%.0fk..%.0fk", lowest/1000, highest/1000), ratio, whole, own, walsender, broker, allocs, peak, 100*busy))
	r.write(map[string]any{
		"case": name, "contender": contender, "turns": len(turns), "rows": turns[0].rows, "rows_per_second": rate, "rows_per_second_least": lowest, "rows_per_second_most": highest,
		"ratio_to_best_reader": ratio, "rows_per_second_with_start": whole, "us_per_row": own, "walsender_us_per_row": walsender, "broker_us_per_row": broker,
		"allocations_per_row": allocs, "peak_mib": peak, "machine_busy_before": busy, "machine_stolen": stolen,
	})
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// latency reports the turns of one contender under a steady load.
func (r *report) latency(name, contender string, turns []live, busy float64) {
	quantile := func(f func(live) latencies, q float64) float64 {
		return median(turns, func(l live) float64 { return ms(f(l).quantile(q)) })
	}
	arrival, commit := func(l live) latencies { return l.arrival }, func(l live) latencies { return l.commit }
	cores := func(f func(live) time.Duration) float64 {
		return median(turns, func(l live) float64 { return f(l).Seconds() / l.took.Seconds() })
	}
	own, broker := cores(func(l live) time.Duration { return l.own }), cores(func(l live) time.Duration { return l.broker })
	p50, p90, p99 := quantile(arrival, .5), quantile(arrival, .9), quantile(arrival, .99)
	c50, c99 := quantile(commit, .5), quantile(commit, .99)
	events := median(turns, func(l live) float64 { return float64(len(l.arrival)) })
	r.line(fmt.Sprintf("%-34s %-26s %8s %8s %8s %11s %11s %8s %8s %s", "LATENCY", "", "p50 ms", "p90 ms",
		"p99 ms", "COMMIT p50", "COMMIT p99", "CPU", "broker", "busy"),
		fmt.Sprintf("%-34s %-26s %8.2f %8.2f %8.2f %11.2f %11.2f %7.1f%% %7.1f%% %2.0f%%", name, contender, p50,
			p90, p99, c50, c99, 100*own, 100*broker, 100*busy))
	r.write(map[string]any{
		"case": name, "contender": contender, "turns": len(turns), "events": events, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99,
		"commit_p50_ms": c50, "commit_p99_ms": c99, "cores": own, "broker_cores": broker, "machine_busy_before": busy,
		"machine_stolen": median(turns, func(l live) float64 { return l.stolen }),
	})
}

// calm reports the start, single events, and idleness.
func (r *report) calm(name, contender string, c calm) {
	start := median(c.start, ms)
	values := []float64{
		start, ms(c.lone.quantile(.5)), ms(c.lone.quantile(.99)), ms(c.commit.quantile(.5)),
		ms(c.floor.quantile(.5)),
	}
	r.line(fmt.Sprintf("%-34s %-26s %9s %12s %12s %11s %9s %9s %10s %9s %s", "CALM", "", "start ms",
		"lone p50 ms", "lone p99 ms", "COMMIT p50", "floor p50", "idle CPU", "wake-ups/s", "idle MiB", "busy"),
		fmt.Sprintf("%-34s %-26s %9.0f %12.2f %12.2f %11.2f %9.2f %8.2f%% %10.1f %9.0f %2.0f%%", name,
			contender, values[0], values[1], values[2], values[3], values[4],
			100*c.cpu, c.wakeups, c.residentMiB, 100*c.busy))
	r.write(map[string]any{
		"case": name, "contender": contender, "start_ms": values[0], "lone_p50_ms": values[1], "lone_p99_ms": values[2], "commit_p50_ms": values[3], "producer_alone_p50_ms": values[4],
		"idle_cores": c.cpu, "idle_wakeups_per_second": c.wakeups, "idle_mib": c.residentMiB, "machine_busy_before": c.busy,
	})
}
