package migrations

import (
	"fmt"
	"strings"
)

// Report is what was found and what was made, in the order of the setup.
type Report struct {
	Findings []Finding
}

// Finding is one sentence about one thing.
type Finding struct {
	Object string   // Such as "table public.outbox".
	Text   string   // What was found, made or is wrong with it.
	Level  Level    // How much it matters.
	SQL    []string // What mends it, each ready to run; may be empty.
}

// Level is how much a finding matters.
type Level int

// Levels of findings.
const (
	Found   Level = iota // It is there and good.
	Made                 // It was created, or would be by Apply.
	Warning              // The relay works, but somebody should know.
	Problem              // The relay would not work.
)

// String is the finding as an operator reads it.
func (f Finding) String() string {
	prefix := ""
	switch f.Level {
	case Warning:
		prefix = "warning: "
	case Problem:
		prefix = "problem: "
	}
	return fmt.Sprintf("%s%s: %s", prefix, f.Object, f.Text)
}

// Lines are the findings with the SQL that mends them, indented below.
func (r Report) Lines() []string {
	var lines []string
	for _, finding := range r.Findings {
		lines = append(lines, finding.String())
		for _, sql := range finding.SQL {
			lines = append(lines, "    "+sql+";")
		}
	}
	return lines
}

// Problems are the findings that keep the relay from working.
func (r Report) Problems() []Finding {
	var problems []Finding
	for _, finding := range r.Findings {
		if finding.Level == Problem {
			problems = append(problems, finding)
		}
	}
	return problems
}

// ProblemError says that the setup cannot be completed until somebody has mended what the findings
// say.
type ProblemError struct {
	Problems []Finding
}

// Error lists the problems and the SQL that mends them.
func (e *ProblemError) Error() string {
	return "prepare outbox: nothing was changed\n" + strings.Join(Report{Findings: e.Problems}.Lines(), "\n")
}

func (r *Report) add(level Level, object, text string, sql ...string) {
	r.Findings = append(r.Findings, Finding{Object: object, Text: text, Level: level, SQL: sql})
}
