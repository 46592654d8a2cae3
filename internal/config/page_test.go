package config

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

var update = flag.Bool("update", false, "write docs/CONFIGURATION.md anew from Config")

const settingsPage = "../../docs/CONFIGURATION.md"

// exampleFile is the file that the page shows. TestExampleFile reads it.
const exampleFile = `postgres_url: postgres://walpost@db.example.com/shop
kafka_brokers: [kafka-1.example.com:9092, kafka-2.example.com:9092]
table: [public.outbox, billing.outbox]
columns:
  aggregatetype: kind
  payload: body
max_in_flight_bytes: 16MiB
`

// intro is what comes before the settings.
const intro = `# Configuration

*For whoever installs or tunes a relay. This page is made from the settings themselves, by a test.*

Each setting has three names, for example:

| environment variable | flag | key of the file |
|---|---|---|
| ` + "`WALPOST_KAFKA_BROKERS` | `--kafka-brokers` | `kafka_brokers`" + ` |

- A flag beats the variable, which beats the file, which beats the default.
- ` + "`walpost run --help`" + ` lists all settings. The other commands take those that they need.
- Every fault of the settings is listed at once, with exit code 2, and nothing is started.
- ` + "`run`" + ` warns of a ` + "`WALPOST_`" + ` variable that is no setting. In the file such a key is an error.
- Sizes are bytes, or a number with KiB, MiB or GiB. Durations look like ` + "`50ms`, `30s` or `1m30s`" + `.

## The file

` + "`walpost.yaml`" + ` in the working directory, or the file that ` + "`WALPOST_CONFIG`" + ` or ` + "`--config`" + ` names:

` + "```yaml\n" + exampleFile + "```" + `

## Other variables

| variable | |
|---|---|
| ` + "`PGHOST`, `PGPASSWORD`, `PGSSLMODE`" + ` ... | libpq's: what ` + "`WALPOST_POSTGRES_URL`" + ` leaves out |
| ` + "`GOMAXPROCS`" + ` | processors of a relay, 1 if unset: [One processor](PERFORMANCE.md#one-processor) |
| ` + "`WALPOST_CACHE`" + ` | where [servers](TESTING.md#where-the-servers-come-from) are kept |
`

// details are facts that the help of a flag has no room for. Limits come from the checks.
var details = map[string][]string{
	"postgres-url": {
		"Give the direct address of a primary, not that of a connection pooler.",
		"Several hosts may be named: `postgres://walpost@a,b/shop?target_session_attrs=primary`. The one that " +
			"answered last is tried first; if it is silent for a second, the next one is tried as well.",
	},
	"origin":               {"See [A subscription](OPERATIONS.md#a-subscription)."},
	"delivery":             {"See [Exactly once](EXACTLY_ONCE.md)."},
	"transaction-interval": {fmt.Sprintf("From %s to %s.", minInterval, maxInterval)},
	"transaction-bytes": {
		fmt.Sprintf("From %s. It counts events in flight: their bytes, and about 512 more for each. "+
			"With both defaults a transaction holds 4MiB.", minBatch),
	},
	"kafka-max-request-bytes": {
		fmt.Sprintf("From %s to %s. See [Limits](LIMITS.md#events).", minRequest, maxRequest),
	},
	"kafka-linger": {
		fmt.Sprintf("From 0 to %.0f minute. A record waits only while another one is in flight.", maxLinger.Minutes()),
	},
	"kafka-ca-file":   {"Read at each connection."},
	"kafka-cert-file": {"Read at each connection."},
	"kafka-key-file":  {"Read at each connection."},
	"max-in-flight-bytes": {
		fmt.Sprintf("At least %s. Events count from the moment they are handed to the "+
			"Kafka client until a position behind them is stored.", minInFlight),
	},
	"drain-timeout": {"With the brokers away a stop may take three seconds more."},
	"http-addr":     {"Each relay on a host needs an address of its own."},
}

// TestSettingsPage compares docs/CONFIGURATION.md with Config; -update writes it.
func TestSettingsPage(t *testing.T) {
	t.Parallel()
	want := renderPage(t)
	if *update {
		if err := os.WriteFile(settingsPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(settingsPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/CONFIGURATION.md is stale: go test ./internal/config -run TestSettingsPage -update")
	}
}

// TestExampleFile reads the file that the page shows.
func TestExampleFile(t *testing.T) {
	setup(t, nil, exampleFile)
	var c cli
	if _, err := Parse(&c, []string{"run"}, t.Output(), t.Output()); err != nil {
		t.Fatal(err)
	}
	if c.Run.Columns["payload"] != "body" || len(c.Run.Table) != 2 || c.Run.MaxInFlightBytes != 16<<20 {
		t.Errorf("the example makes %+v", c.Run.Config)
	}
}

func renderPage(t *testing.T) string {
	t.Helper()
	model, err := kong.New(&Config{}, kong.NoDefaultHelp())
	if err != nil {
		t.Fatal(err)
	}
	var page strings.Builder
	page.WriteString(intro)
	group := "The file"
	described := 0
	for _, setting := range model.Model.Flags {
		if next := groupOf(setting); next != group {
			group = next
			fmt.Fprintf(&page, "\n## %s\n", group)
		}
		if setting.Name == "config" {
			continue // The introduction has it.
		}
		if _, found := details[setting.Name]; found {
			described++
		}
		page.WriteString(renderSetting(setting))
		if setting.Name == "kafka-sasl-password-file" {
			fmt.Fprintf(&page, "\n### %s\n\nThe password itself. It has no flag and no key.\n", passwordVariable)
		}
	}
	if described != len(details) {
		t.Errorf("%d settings are described in detail, want all of the %d that details names", described, len(details))
	}
	return page.String()
}

func groupOf(setting *kong.Flag) string {
	if setting.Group == nil {
		return "The file"
	}
	return setting.Group.Title
}

func renderSetting(setting *kong.Flag) string {
	help, required := strings.CutPrefix(setting.Help, "Required. ")
	state := "No default."
	switch {
	case required:
		state = "Required."
	case setting.Default != "":
		state = "Default: `" + setting.Default + "`."
	}
	text := strings.Join(append([]string{asCode(help)}, details[setting.Name]...), " ")
	return fmt.Sprintf("\n### %s\n\n%s\n\n%s\n", variable(setting.Name), state, fill(text))
}

var code = regexp.MustCompile(`--[a-z-]+[a-z]|WALPOST_[A-Z_]+|\bPG\*|\{[a-z]+\}|[a-z]+(\.[a-z]+)*=[a-z_-]+(,[a-z]+=[a-z_-]+)*|[a-z]+(\.[a-z]+){2,}`)

// asCode marks what a help text names literally.
func asCode(help string) string { return code.ReplaceAllString(help, "`$0`") }

// fill breaks a text into lines of 100 columns.
func fill(text string) string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > 100:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return strings.Join(append(lines, line), "\n")
}
