package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/walpost/walpost/internal/ops"
)

// page writes names and values in two columns. Its error is that of flush.
type page struct{ *tabwriter.Writer }

func newPage(w io.Writer) page { return page{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

// row writes a value; where there are several lines, the name stands beside the first.
func (p page) row(name string, values ...string) {
	for _, value := range values {
		for line := range strings.Lines(value) {
			_, _ = fmt.Fprintf(p, "%s\t%s\n", name, strings.TrimSpace(line)) // an error comes again at the flush
			name = ""
		}
	}
}

func printRelay(w io.Writer, addr string, s ops.Status) error {
	p := newPage(w)
	p.row("relay", addr+", walpost "+s.Version)
	state := s.State + ", ready"
	if !s.Ready {
		state = s.State + ", not ready"
	}
	p.row("state", state)
	p.row("not ready because", s.Reasons...)
	p.row("source", orUnknown(s.Source))
	p.row("delivery", orUnknown(s.Delivery))
	p.row("received", position(s.ReceivedLSN))
	p.row("stored", position(s.StoredLSN))
	p.row("confirmed", position(s.ConfirmedLSN)+distance(s.ConfirmedLagBytes, " behind"))
	p.row("WAL retained from", position(s.RestartLSN)+distance(s.RestartLagBytes, "")+heldBy(s.Holder))
	p.row("WAL left", left(s.SlotSafeWALBytes))
	p.row("in flight", plural(s.InFlightEvents, "event")+", "+size(float64(s.InFlightBytes)))
	p.row("oldest waiting", seconds(s.OldestUnpublishedSeconds))
	p.row("published", counts(s.Published, "nothing since the start")...)
	p.row("produce errors", counts(s.ProduceErrors, "none")...)
	p.row("warning", s.Warnings...)
	for _, peer := range slices.Sorted(maps.Keys(s.Up)) {
		p.row(peer, upOrDown(s.Up[peer])+", "+plural(s.Reconnects[peer], "reconnect"))
	}
	return p.Flush()
}

func printServers(w io.Writer, s *serversStatus) error {
	p := newPage(w)
	p.row("relay", s.State+": "+s.Relay)
	if len(s.Up) == 0 {
		p.row("servers", "not asked: neither Postgres nor Kafka is given")
		printWrong(p, s)
		return p.Flush()
	}
	p.row("source", orUnknown(s.Source))
	if up, asked := s.Up[ops.PeerPostgres]; asked {
		p.row("postgres", upOrDown(up))
		if up {
			printSlot(p, s)
		}
	}
	if up, asked := s.Up[ops.PeerKafka]; asked {
		p.row("kafka", upOrDown(up))
		if up {
			p.row("stored", s.stored())
		}
	}
	printWrong(p, s)
	return p.Flush()
}

func printWrong(p page, s *serversStatus) {
	p.row("wrong", s.Reasons...)
	p.row("what to do", s.Hints...)
	p.row("warning", s.Warnings...)
}

func printSlot(p page, s *serversStatus) {
	if s.published {
		p.row("publication", s.publication+" of "+strings.Join(s.tables, ", "))
	} else {
		p.row("publication", s.publication+": does not exist")
	}
	if s.Slot == nil {
		p.row("slot", s.slot+": does not exist")
		return
	}
	reader := "nobody reads it"
	if s.Slot.Active {
		reader = fmt.Sprintf("being read (pid %d of Postgres)", s.Slot.ActivePID)
	}
	p.row("slot", fmt.Sprintf("%s, %s, WAL status %s", s.slot, reader, orUnknown(s.Slot.WALStatus)))
	p.row("confirmed", position(s.ConfirmedLSN)+distance(s.ConfirmedLagBytes, " behind"))
	p.row("WAL retained from", position(s.RestartLSN)+distance(s.RestartLagBytes, "")+heldBy(s.Holder))
	p.row("WAL left", left(s.SlotSafeWALBytes))
}

func (s *serversStatus) stored() string {
	if s.StoredLSN == nil {
		return "nothing for this slot in topic " + s.topic + ": no relay has stored a position yet"
	}
	ago := time.Since(*s.StoredAt).Round(time.Second)
	return fmt.Sprintf("%s on timeline %d in topic %s, %s ago", *s.StoredLSN, s.Timeline, s.topic, ago)
}

func upOrDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

func orUnknown(text string) string {
	if text == "" {
		return "not known"
	}
	return text
}

func position(lsn *string) string {
	if lsn == nil {
		return "not known"
	}
	return *lsn
}

func distance(bytes *float64, what string) string {
	if bytes == nil {
		return ""
	}
	return ", " + size(*bytes) + what
}

func heldBy(holder string) string {
	if holder == "" {
		return ""
	}
	return ", held by " + holder
}

// left says how much more may be written before Postgres gives the slot up: without
// max_slot_wal_keep_size it never does.
func left(bytes *float64) string {
	if bytes == nil {
		return "no limit known"
	}
	return size(*bytes) + " until Postgres may give up the slot"
}

func size(bytes float64) string {
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if bytes < 1024 {
			return fmt.Sprintf("%.4g %s", bytes, unit)
		}
		bytes /= 1024
	}
	return fmt.Sprintf("%.4g TiB", bytes)
}

// plural is a number of things, in the singular for one.
func plural[N int64 | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func seconds(s float64) string {
	if s == 0 {
		return "nothing waits"
	}
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

// counts leaves out what is 0: that is of use to a metric alone.
func counts(byName map[string]uint64, none string) []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if byName[name] > 0 {
			lines = append(lines, fmt.Sprintf("%s: %d", name, byName[name]))
		}
	}
	if len(lines) == 0 {
		return []string{none}
	}
	return lines
}
