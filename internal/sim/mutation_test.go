//go:build mutation

package sim

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutations are bugs that somebody could write, each of which breaks a promise. Some were found in
// other relays, some in this one.
var mutations = []struct{ name, file, old, new string }{
	{"confirm past the end of a transaction", "checkpoint/watermark.go", "w.seal(Position{End: end})", "w.seal(Position{End: end + 64})"},
	{"confirm what was received", "internal/relay/session.go", "s.out.Reached(s.watermark.Reached())\n\t\t}", "s.stream.Confirm(s.watermark.Reached().End)\n\t\t}"},
	{"the furthest finished event instead of the finished prefix", "checkpoint/watermark.go", "w.queue[0].pending.Load() == 0 {", "w.queue[len(w.queue)-1].pending.Load() == 0 {"},
	{"confirm a position before it is stored", "internal/relay/keeper.go", "if err := s.out.Save(ctx, state); err != nil {", "s.confirmable.store(pos.End)\n\tif err := s.out.Save(ctx, state); err != nil {"},
	{"forget what is in flight when the stream breaks", "internal/relay/keeper.go", "pos, n, _ := s.watermark.Position()\n\ts.last", "_, n, _ := s.watermark.Position()\n\tpos := s.watermark.Reached()\n\ts.last"},
	{"a keepalive overtakes events", "checkpoint/watermark.go", "if n := len(w.queue); n > 0 && w.queue[n-1].idle {", "if n := len(w.queue); n > 0 && w.done.Commit == 0 {\n\t\tw.done = pos\n\t} else if n > 0 && w.queue[n-1].idle {"},
	{"go on behind an event that was refused", "sink/sink.go", "if !closing(err) && s.ctx.Err() == nil {", "if !closing(err) && s.ctx.Err() == nil {\n\t\t\ts.how.confirmed(f)\n\t\t\treturn"},
	{"keep bytes that were only borrowed", "sink/record.go", "v, space = space[:n:n], space[n:]\n", "_, space = space[:n:n], space[n:]\n"},
	{"a record keeps its time through a wait", "sink/sink.go", "f.record.Timestamp = time.Time{}\n", ""},
	{"go on one row too far", "checkpoint/position.go", "row < p.Rows)", "row <= p.Rows)"},
	{"go on one row too early", "checkpoint/position.go", "row < p.Rows)", "row+1 < p.Rows)"},
	{"the state from before the fence", "internal/relay/resume.go", "found, err := s.position(ctx, view, s.store.Load)", "found, err := wanted, error(nil)"},
	{"positions compared by their End alone", "checkpoint/position.go", "if p.Rows == 0 {\n\t\treturn p.End\n\t}\n\treturn p.Furthest()", "return p.End"},
	{"commit a Kafka transaction without an event of it", "sink/commit.go", "case t.doomed.Err() != nil:\n\t\treturn errEventFailed\n\tcase flushed != nil:", "case false && flushed != nil:"},
	{"the position of events that still wait", "sink/transactions.go", "t.open, t.cut = false, pos\n", "t.open, t.cut = false, t.at\n"},
	{"events pass one that was refused", "sink/gate.go", "case <-c.gate.shut:\n\t\t<-c.gate.release\n\t\treturn 0, net.ErrClosed\n", ""},
	{"no bound", "checkpoint/watermark.go", "w.full = w.added-w.safe.Load() >= limit", "w.full = false && w.added-w.safe.Load() >= limit"},
	{"nobody is told that there is room", "checkpoint/watermark.go", "w.safe.Store(freed)\n\tsignal(w.room)", "w.safe.Store(freed)"},
	{"the publication is not inspected", "cdc/check.go", "func (v View) CheckUnaltered(cfg Config, earlier map[string]string) error {\n", "func (v View) CheckUnaltered(cfg Config, earlier map[string]string) error {\n\tearlier = nil\n"},
	{"a record without the publication", "internal/relay/keeper.go", "Generation: s.generation, Publication: s.confirmable.inspected().Identity(),", "Generation: s.generation,"},
	{"confirm past the last inspection of the publication", "internal/relay/keeper.go", "c.stored = max(c.stored, lsn)\n\tc.stream.Confirm(min(c.stored, c.verified))", "c.stored = max(c.stored, lsn)\n\tc.stream.Confirm(c.stored)"},
	{"memory of an event that is not published yet is used again", "sink/transactions.go", "confirmed(f *flight) { f.written.Store(true) }", "confirmed(f *flight) { f.free() }"},
	{"no status while there is no room", "internal/relay/session.go", "return s.stream.Wait(ctx, s.r.room)", "<-s.r.room; return nil"},
	{"halt at the first of several that were refused together", "sink/errors.go", "return e.Sent && !e.Outage && !e.Alone && !e.Lost()", "return false"},
	{"halt at a row whose predecessors wait", "internal/relay/finish.go", "patient := how == inOutage || how == atRow", "patient := how == inOutage"},
	{"halt at a row whose predecessors have failed", "internal/relay/finish.go", "(why.class.passes() || why.class.ofRow()):", "why.class.passes():"},
	{"halt at a row though the commit before it has failed", "sink/errors.go", "return !before.Sent", "return false"},
	{"send an event that has to be alone with others", "sink/delivery.go", "if f.alone() && (d.s.client.Flush(d.s.ctx) != nil || d.s.Err() != nil) {", "if false {"},
	{"an event gets another place in the stream with each timeline", "internal/relay/session.go", "Timeline: s.history.At(commit)", "Timeline: s.history.Current()"},
	{"what a failover has undone counts as further", "internal/relay/keeper.go", "max(s.history.At(pos.Furthest()), s.timeline)", "s.history.At(pos.Furthest())"},
	{"stay the holder of a slot that another has fenced", "sink/failure.go", "if s.cfg.Exactly != nil && fencing(err) {", "if false {"},
}

// TestMutations plays the simulation with each bug in its place: it must fail.
func TestMutations(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutations {
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			path := filepath.Join(root, m.file)
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(string(source), m.old) != 1 {
				t.Fatalf("%s has the text %d times: bring this mutation up to date", m.file, strings.Count(string(source), m.old))
			}
			dir := t.TempDir()
			mutated, overlay := filepath.Join(dir, "mutated.go"), filepath.Join(dir, "overlay.json")
			if err := os.WriteFile(mutated, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(overlay, replace, 0o600); err != nil {
				t.Fatal(err)
			}
			command := exec.Command("go", "test", "-overlay", overlay, "-count=1", "-timeout", "10m", "-run", "TestSimulation", "./internal/sim", "-seeds", "3000", "-noshrink")
			command.Dir = root
			output, err := command.CombinedOutput()
			text := string(output)
			switch {
			case err == nil:
				t.Errorf("not found in 3000 runs")
			case strings.Contains(text, "build failed"):
				t.Fatalf("does not compile: %s", text)
			default:
				t.Log(lastLine(text))
			}
		})
	}
}

// lastLine is the last line of the story of a failed run: the first broken rule.
func lastLine(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.Contains(line, "partition -1:") && i+1 < len(lines) {
			return strings.TrimSpace(lines[i+1])
		}
	}
	return strings.TrimSpace(text[:min(len(text), 300)])
}
