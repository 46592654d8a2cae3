package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrHelp says that Parse has printed the help that was asked for: there is nothing to run and
// nothing is wrong.
var ErrHelp = errors.New("help was printed")

// UsageError lists everything that is wrong with a command line and its settings.
type UsageError struct {
	Faults []string // One line each, in the order of the settings; never empty.
}

// Error gives one fault a line.
func (e *UsageError) Error() string { return strings.Join(e.Faults, "\n") }

// fault is one thing to mend: what is wrong, and with which flag. No flag means the text says
// where.
type fault struct {
	flag string
	text string
}

func (f fault) String() string {
	if f.flag == "" {
		return f.text
	}
	return fmt.Sprintf("--%s (%s, %s): %s", f.flag, variable(f.flag), fileKey(f.flag), f.text)
}

// faults gathers instead of stopping at the first.
type faults []fault

func (f *faults) add(flag, format string, args ...any) {
	*f = append(*f, fault{flag: flag, text: fmt.Sprintf(format, args...)})
}

// without leaves out the faults of flags that were reported already.
func (f faults) without(flags map[string]bool) faults {
	return slices.DeleteFunc(slices.Clone(f), func(one fault) bool { return one.flag != "" && flags[one.flag] })
}

func (f faults) lines() []string {
	lines := make([]string, 0, len(f))
	for _, one := range f {
		lines = append(lines, one.String())
	}
	return lines
}

// variable is the environment variable of a flag.
func variable(flag string) string { return prefix + strings.ToUpper(fileKey(flag)) }

// fileKey is the key of a flag in the YAML file.
func fileKey(flag string) string { return strings.ReplaceAll(flag, "-", "_") }
