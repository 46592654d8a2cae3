package config

import "testing"

func TestFile(t *testing.T) {
	tests := []struct {
		name   string
		file   string
		faults []string // Pieces of the faults, in order; none means that the file is good.
	}{
		{"empty", "", nil},
		{"only a comment", "# nothing\n", nil},
		{"number for a string", "slot: 123\n", nil},
		{"list and text", "table:\n  - a.b\nkafka_brokers: localhost:9092\n", nil},
		{"unknown key", "slot: a\nslots: b\n", []string{`walpost.yaml:2: unknown key "slots", did you mean "slot"?`}},
		{"unknown key near another", "brokers: a:1\n", []string{`walpost.yaml:1: unknown key "brokers", did you mean "kafka_brokers"?`}},
		{"dashes", "state-topic: a\n", []string{`unknown key "state-topic", did you mean "state_topic"?`}},
		{"flag of one command", "print: true\n", []string{`unknown key "print"`}},
		{"names another file", "config: other.yaml\n", []string{"cannot name another file"}},
		{"secret that only the environment may carry", "kafka_sasl_password: pw\n", []string{`unknown key "kafka_sasl_password"`}},
		{"key twice", "slot: a\nslot: b\n", []string{"already defined"}},
		{"not YAML", "slot: [a\n", []string{"walpost.yaml:1: "}},
		{"not a map", "- a\n", []string{"is not a map of settings"}},
		{"no value", "slot:\n", []string{"slot (--slot) has no value"}},
		{"map for a string", "slot: {a: b}\n", []string{"must be one plain value"}},
		{"nested list", "table: [[a]]\n", []string{"must be a list of plain values"}},
		{"list for a map", "columns: [a]\n", []string{"must be a map of plain values"}},
		{"two documents", "slot: a\n---\nslot: b\n", []string{"several YAML documents"}},
		{"bad values of every kind", "kafka_linger: soon\ncreate_topics: perhaps\nmax_in_flight_bytes: 5 apples\nslot: A\n", []string{
			"--slot (WALPOST_SLOT, slot):", "--create-topics (WALPOST_CREATE_TOPICS, create_topics):",
			"--kafka-linger (WALPOST_KAFKA_LINGER, kafka_linger):", "--max-in-flight-bytes",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			setup(t, nil, test.file)
			_, _, err := parse(t, append([]string{"run"}, required...)...)
			wantFaults(t, err, test.faults)
		})
	}
}

func TestNumberForString(t *testing.T) {
	setup(t, nil, "slot: 0123\npublication: 1.50\nlog_level: debug\ntopic: 'it''s'\n")
	c, _, _ := parse(t, append([]string{"run"}, required...)...)
	if c.Run.Slot != "0123" || c.Run.Publication != "1.50" || c.Run.Topic != "it's" {
		t.Errorf("not the text of the file: %q %q %q", c.Run.Slot, c.Run.Publication, c.Run.Topic)
	}
}

func TestNamedFile(t *testing.T) {
	setup(t, nil, "slot: from_default_file\n")
	write(t, "other.yaml", "slot: from_other\n")
	c, _, err := parse(t, append([]string{"run", "--config=other.yaml"}, required...)...)
	if err != nil || c.Run.Slot != "from_other" {
		t.Errorf("flag: %q, %v", c.Run.Slot, err)
	}
	t.Setenv("WALPOST_CONFIG", "other.yaml")
	c, _, err = parse(t, append([]string{"run"}, required...)...)
	if err != nil || c.Run.Slot != "from_other" {
		t.Errorf("variable: %q, %v", c.Run.Slot, err)
	}
	_, _, err = parse(t, append([]string{"run", "--config=none.yaml"}, required...)...)
	wantFaults(t, err, []string{"--config (WALPOST_CONFIG, config): open none.yaml"})
}
