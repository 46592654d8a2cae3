package relay

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/walpost/walpost/cdc"
	"github.com/walpost/walpost/decoder"
	"github.com/walpost/walpost/sink"
)

// TestSettingsThatDoNotFit: a session publishes what was inserted under the names that the settings
// give, and then stops with the setting to change, whether a row comes that is inserted under other
// names or not.
func TestSettingsThatDoNotFit(t *testing.T) {
	t.Parallel()
	for name, later := range map[string]bool{"and no later row": false, "and a later row": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := setup(t)
			var log lockedBuffer
			f.relay.log = zerolog.New(&log)
			f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x'), (2, 't', 'k', 'x')")
			f.exec("ALTER TABLE outbox RENAME payload TO body")
			if later {
				f.exec("INSERT INTO outbox VALUES (3, 't', 'k', 'x')")
			}
			s := f.resume()
			err := s.finish(t.Context(), s.run(t.Context()))
			var stop *cdc.StopError
			if !errors.As(err, &stop) || stop.Gap || !strings.Contains(stop.What, `table public.outbox has no column "payload"`) || !strings.Contains(stop.Hint, "payload=NAME in WALPOST_COLUMNS") {
				t.Errorf("the session ended with %v", err)
			}
			if n := s.out.Stats().Published["t"]; n != 2 {
				t.Errorf("%d events are published, want those of before", n)
			}
			if n := strings.Count(log.String(), "the settings do not fit"); n != 1 {
				t.Errorf("the log says it %d times:\n%s", n, log.String())
			}
		})
	}
}

// TestPresentRowBehindAnOutage: the brokers take an event of before only after the time that a stop
// has, or the client gives it up. A row of the present shape ends the session meanwhile. Whoever
// changes the settings then relies on it that everything of before is published.
func TestPresentRowBehindAnOutage(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]int16{"late": 0, "given up": kerr.SaslAuthenticationFailed.Code} {
		for delivery, setup := range map[string]func(*testing.T) *fixture{"at least once": setup, "exactly once": exactly} {
			t.Run(name+", "+delivery, func(t *testing.T) {
				t.Parallel()
				f := setup(t)
				f.relay.cfg.DrainTimeout = time.Second
				began, over := time.Now(), false
				f.broker.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
					f.broker.KeepControl()
					r := req.(*kmsg.ProduceRequest)
					if over || !holds(r, "good1") {
						return nil, nil, false
					}
					code := kerr.NotEnoughReplicas.Code
					if time.Since(began) > 4*time.Second {
						over, code = true, last
					}
					return refuse(r, func(string) int16 { return code }), nil, code != 0
				})
				f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'good1')")
				f.exec("ALTER TABLE outbox RENAME payload TO body")
				f.exec("INSERT INTO outbox VALUES (2, 't', 'k', 'x')")
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				err := New(f.relay.cfg).Run(ctx)
				var stop *cdc.StopError
				if !errors.As(err, &stop) || !strings.Contains(stop.What, `has no column "payload"`) {
					t.Fatalf("Run = %v", err)
				}
				if got := f.seen("t"); len(got) != 1 {
					t.Errorf("it stops with %v, and consumers see %q", err, got)
				}
			})
		}
	}
}

// TestSettingsThatDoNotFitBesideAnotherRelay: whoever is told to change the settings must not take
// it that everything of before is published. The process that reads the slot may be all that is
// left of a relay that was killed.
func TestSettingsThatDoNotFitBesideAnotherRelay(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
	f.resume()
	f.exec("ALTER TABLE outbox RENAME payload TO body")
	err := New(f.relay.cfg).Run(t.Context())
	var halt *Halt
	if !errors.As(err, &halt) || !strings.Contains(err.Error(), "What was inserted before is left to pid") || !strings.Contains(halt.Hint, "payload=NAME in WALPOST_COLUMNS") {
		t.Errorf("Run = %v", err)
	}
}

// TestSettingsOfLaterRows: a row of before stops a session whose settings are right for the table
// as it is. The hint asks for those of that time.
func TestSettingsOfLaterRows(t *testing.T) {
	t.Parallel()
	f := setup(t)
	f.exec("INSERT INTO outbox VALUES (1, 't', 'k', 'x')")
	f.exec("ALTER TABLE outbox RENAME payload TO body")
	f.relay.cfg.Columns = map[string]string{"payload": "body"}
	s := f.resume()
	err := s.finish(t.Context(), s.run(t.Context()))
	halt := f.relay.halt(classify(err), "7")
	if !strings.Contains(err.Error(), `required column "body" is missing`) || !strings.Contains(halt.Hint, "the columns that the table had when this row was inserted") {
		t.Errorf("the session ended with %v, what to do: %v", err, halt)
	}
}

func TestCheckColumns(t *testing.T) {
	t.Parallel()
	const text, integer = 25, 23
	columns := func(names ...string) cdc.TableView {
		table := cdc.TableView{Schema: "public", Name: "outbox"}
		for _, name := range names {
			name, is, _ := strings.Cut(name, ":")
			c := cdc.ColumnView{Name: name, Type: text, TypeName: "text"}
			if is == "int" {
				c.Type, c.TypeName = integer, "integer"
			}
			table.Columns = append(table.Columns, c)
		}
		return table
	}
	whole := columns("id", "aggregatetype", "aggregateid", "type", "payload", "headers", "region")
	for name, c := range map[string]struct {
		table   cdc.TableView
		mapping map[string]string
		extra   []string
		want    string // of the error and its hint; empty = none
	}{
		"all":                            {whole, nil, []string{"region"}, ""},
		"no optional ones":               {columns("id", "aggregatetype", "aggregateid", "payload"), nil, nil, ""},
		"mapped":                         {columns("id", "kind", "aggregateid", "body"), map[string]string{"aggregatetype": "kind", "payload": "body"}, nil, ""},
		"created_at is of init alone":    {whole, map[string]string{"created_at": "at"}, nil, ""},
		"no id":                          {columns("aggregatetype", "aggregateid", "payload"), nil, nil, `has no column "id"|id=NAME in WALPOST_COLUMNS`},
		"no aggregateid":                 {columns("id", "aggregatetype", "payload"), nil, nil, `has no column "aggregateid"`},
		"mapped to none":                 {whole, map[string]string{"payload": "body"}, nil, `has no column "body", which WALPOST_COLUMNS names as its payload|payload=NAME in WALPOST_COLUMNS`},
		"an optional one mapped to none": {whole, map[string]string{"headers": "meta"}, nil, `has no column "meta", which WALPOST_COLUMNS names as its headers`},
		"a type":                         {columns("id", "aggregatetype", "aggregateid", "payload:int"), nil, nil, `column "payload" is of type integer|give this one such a type`},
		"the type of an optional one":    {columns("id", "aggregatetype", "aggregateid", "payload", "headers:int"), nil, nil, `column "headers" is of type integer`},
		"the topic":                      {whole, nil, []string{"tenant"}, `has no column "tenant", which WALPOST_TOPIC names|in WALPOST_TOPIC`},
	} {
		view := cdc.View{Tables: []cdc.TableView{whole, c.table}}
		if strings.HasPrefix(c.want, `has no column "id"`) || c.mapping != nil {
			view.Tables = []cdc.TableView{c.table}
		}
		err := CheckColumns(c.mapping, c.extra, view)
		var stop *cdc.StopError
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want == "":
		case !errors.As(err, &stop):
			t.Errorf("%s: %v, want %s", name, err, c.want)
		default:
			for _, piece := range strings.Split(c.want, "|") {
				if !strings.Contains(stop.What+stop.Hint, piece) {
					t.Errorf("%s: %s (%s) does not say %s", name, stop.What, stop.Hint, piece)
				}
			}
		}
	}
}

// TestColumnHint: whoever may skip a row must not do so for a fault of the settings.
func TestColumnHint(t *testing.T) {
	t.Parallel()
	template, err := sink.ParseTemplate("{region}", nil)
	if err != nil {
		t.Fatal(err)
	}
	r := New(Config{CDC: cdc.Config{Slot: "walpost"}, Topic: template})
	for want, bad := range map[string]*decoder.Error{
		"A row in the WAL cannot be changed":                    {Column: "payload", EventID: "e", CommitLSN: 1},
		"set WALPOST_COLUMNS to the columns that the table had": {Column: "payload", Relation: true, CommitLSN: 1},
		"set WALPOST_TOPIC to the columns that the table had":   {Column: "region", Relation: true, CommitLSN: 1},
	} {
		if got := r.columnHint(bad); !strings.Contains(got, want) {
			t.Errorf("%+v: %s, want %s", bad, got, want)
		}
	}
}
