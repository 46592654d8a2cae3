package config

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Lenient is a command that can do without settings that are required otherwise, such as
// "kafka-brokers".
type Lenient interface {
	OptionalSettings() []string // Names of flags, without dashes.
}

// Sparing is a command that has no use for some settings. They are taken all the same, because the
// environment and the file serve every command, but its help does not list them.
type Sparing interface {
	UnusedSettings() []string // Names of flags, without dashes.
}

// Parse reads the command line into cli, a pointer to a struct as kong describes it, whose commands
// embed Config, and fills and checks the Config of the chosen command. Settings in Config can also
// be given in the environment and in the file; other flags are for one run of one command and have
// neither, unless a tag names a variable.
//
// The error is ErrHelp after help was printed, a *UsageError for everything that the user can mend,
// and otherwise a mistake in cli itself.
func Parse(cli any, args []string, stdout, stderr io.Writer, options ...kong.Option) (*kong.Context, error) {
	p := &commandLine{given: map[*kong.Value]error{}, standing: map[*kong.Value]error{}}
	k, err := p.build(cli, stdout, stderr, options)
	if err != nil {
		return nil, fmt.Errorf("build command line: %w", err)
	}
	args = p.dropUnknown(k, args)
	ctx, err := k.Parse(args)
	if p.exited {
		return nil, ErrHelp
	}
	var parseError *kong.ParseError
	if errors.As(err, &parseError) {
		ctx = parseError.Context
		p.usage.add("", "%v", err)
	} else if err != nil {
		return nil, fmt.Errorf("parse command line: %w", err)
	}
	if ctx != nil && ctx.Error == nil {
		p.check(ctx)
	}
	if len(p.usage) > 0 {
		return nil, &UsageError{Faults: p.usage.lines()}
	}
	return ctx, nil
}

// commandLine is what one call of Parse gathers.
type commandLine struct {
	usage    faults
	file     *fileSettings
	settings map[string]reflect.Kind // Flags that Config declares, and how their fields are made.
	given    map[*kong.Value]error   // What is wrong with values of the command line.
	standing map[*kong.Value]error   // The same for the environment, the file and the defaults.
	exited   bool                    // Help was printed.
}

func (p *commandLine) build(cli any, stdout, stderr io.Writer, options []kong.Option) (*kong.Kong, error) {
	var err error
	if p.settings, err = settings(); err != nil {
		return nil, err
	}
	p.file = &fileSettings{allowed: p.settings}
	return kong.New(cli, append([]kong.Option{
		kong.Name("walpost"),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { p.exited = true }),
		kong.WithHyphenPrefixedParameters(true), // which recorder allows for numbers alone
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Resolvers(p.file),
		kong.PostBuild(func(k *kong.Kong) error {
			p.prepare(k.Model.Node)
			return nil
		}),
	}, options...)...)
}

// prepare names the variables of settings, and makes a value that cannot be read a fault among the
// others: kong by itself stops at the first.
func (p *commandLine) prepare(node *kong.Node) {
	optional, unused := needs(node)
	for _, flag := range node.Flags {
		if p.settings[flag.Name] != reflect.Invalid && len(flag.Envs) == 0 {
			flag.Envs = []string{variable(flag.Name)}
			flag.Tag.Envs = flag.Envs
		}
		if slices.Contains(optional, flag.Name) {
			flag.Help = strings.TrimPrefix(flag.Help, "Required. ")
		}
		flag.Hidden = flag.Hidden || slices.Contains(unused, flag.Name)
		if flag.Name != "help" {
			flag.Mapper = recorder{Mapper: flag.Mapper, line: p}
		}
	}
	for _, child := range node.Children {
		p.prepare(child)
	}
}

// needs are the settings that a command can do without, and those that it has no use for.
func needs(node *kong.Node) (optional, unused []string) {
	if !node.Target.IsValid() || !node.Target.CanAddr() {
		return nil, nil
	}
	command := node.Target.Addr().Interface()
	if lenient, ok := command.(Lenient); ok {
		optional = lenient.OptionalSettings()
	}
	if sparing, ok := command.(Sparing); ok {
		unused = sparing.UnusedSettings()
	}
	return optional, unused
}

// recorder keeps what is wrong with a value instead of ending the parse.
type recorder struct {
	kong.Mapper
	line *commandLine
}

func (r recorder) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	// Defaults and the environment are decoded into the struct itself, everything else into a value
	// beside it.
	record := r.line.given
	inPlace := target.CanAddr() && target.Addr().Pointer() == ctx.Value.Target.Addr().Pointer()
	if inPlace || ctx.Value.Flag != nil && r.line.file.resolving == ctx.Value.Flag {
		record = r.line.standing
	}
	next := ctx.Scan.Peek()
	text, _ := next.Value.(string)
	flag := next.InferredType().IsAny(kong.FlagToken, kong.ShortFlagToken, kong.EOLToken) && !negative.MatchString(text)
	if flag && !ctx.Value.IsBool() {
		// The next flag is not the value of this one: to take it would report faults that are none.
		record[ctx.Value] = errors.New("needs a value")
		return nil
	}
	var twice error
	if target.Kind() == reflect.Map {
		twice = repeatedKey(text, ctx.Value.Tag.MapSep, target)
	}
	if err := r.Mapper.Decode(ctx, target); err != nil {
		record[ctx.Value] = err
		return nil
	}
	if twice != nil {
		record[ctx.Value] = twice
		return nil
	}
	delete(record, ctx.Value)
	return nil
}

// negative is a number that looks like a flag.
var negative = regexp.MustCompile(`^-\.?[0-9]`)

// repeatedKey finds a key that a map would hold twice: the last one would win without a word.
// before is what the flag was given earlier on the command line.
func repeatedKey(text string, sep rune, before reflect.Value) error {
	seen := map[string]bool{}
	for _, pair := range kong.SplitEscaped(text, sep) {
		key, _, found := strings.Cut(pair, "=")
		if found && (seen[key] || before.MapIndex(reflect.ValueOf(key)).IsValid()) {
			return fmt.Errorf("%q is given twice", key)
		}
		seen[key] = true
	}
	return nil
}

var unknownArgument = regexp.MustCompile(`^(unknown flag|unexpected argument) (\S+?)(,|$)`)

// dropUnknown records what the command line should not hold and takes it out, so that the rest can
// be checked as well.
func (p *commandLine) dropUnknown(k *kong.Kong, args []string) []string {
	for {
		ctx, err := kong.Trace(k, args)
		if err != nil || ctx.Error == nil {
			return args // What else may be wrong comes up again in the parse itself.
		}
		match := unknownArgument.FindStringSubmatch(ctx.Error.Error())
		if match == nil {
			return args
		}
		at := slices.IndexFunc(args, func(arg string) bool {
			name, _, _ := strings.Cut(arg, "=")
			return arg == match[2] || name == match[2]
		})
		if at < 0 {
			return args
		}
		p.usage.add("", "%v", ctx.Error)
		args = slices.Delete(slices.Clone(args), at, at+1)
	}
}

// check gathers the faults of the values, of the file and of the settings as a whole.
func (p *commandLine) check(ctx *kong.Context) {
	onCommandLine := map[*kong.Flag]bool{}
	for _, step := range ctx.Path {
		if step.Flag != nil && !step.Resolved {
			onCommandLine[step.Flag] = true
		}
	}
	wrong := map[string]bool{}
	for _, flag := range ctx.Flags() {
		err := p.standing[flag.Value]
		if onCommandLine[flag] {
			err = p.given[flag.Value]
			if flag.Name == "postgres-url" && holdsPassword(flag.Target.String()) {
				err = errors.New("holds a password, and every user of this machine can read a command line: " +
					"give the URL in the environment or the file, or the password in a password file")
			}
		}
		if err == nil {
			continue
		}
		wrong[flag.Name] = true
		if p.settings[flag.Name] != reflect.Invalid {
			p.usage.add(flag.Name, "%v", err)
		} else {
			p.usage.add("", "--%s: %v", flag.Name, err)
		}
	}
	p.usage = append(p.usage, p.file.faults...)
	config, optional := selectedConfig(ctx)
	if config != nil {
		config.readEnvironment()
		p.usage = append(p.usage, config.check(optional).without(wrong)...)
	}
}

// selectedConfig finds the Config that the chosen command embeds, if it does, and what that command
// can do without.
func selectedConfig(ctx *kong.Context) (config *Config, optional []string) {
	for _, step := range ctx.Path {
		node := step.Node()
		if step.Flag != nil || node == nil || !node.Target.IsValid() || !node.Target.CanAddr() {
			continue
		}
		more, _ := needs(node)
		optional = append(optional, more...)
		if node.Target.Kind() != reflect.Struct {
			continue
		}
		for i := range node.Target.NumField() {
			if !node.Target.Type().Field(i).IsExported() {
				continue
			}
			if found, ok := node.Target.Field(i).Addr().Interface().(*Config); ok {
				config = found
			}
		}
	}
	return config, optional
}
