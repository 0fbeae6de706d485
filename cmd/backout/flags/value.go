// Package flags has the flags that several commands share. Their values differ from the
// parser's own in their errors, which name the flag and say what to write.
package flags

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
)

// Unsaid is the reason of a change without one.
const Unsaid = "no reason given"

// Reason is --reason of a change of one incident or rollout. It may be left out,
// since at night people must be quick; the audit log says that it was.
func Reason(clause *kingpin.CmdClause) *string {
	return clause.Flag("reason", "Why, for the audit log.").Default(Unsaid).String()
}

// RequiredReason is --reason where a person replaces a check (approve, deny, sign,
// signal) or a change affects all people (freeze, thaw): it is required.
func RequiredReason(clause *kingpin.CmdClause) *string {
	return clause.Flag("reason", "Why, for the audit log (required).").Required().String()
}

// name is an argument that is not empty.
type name struct{ arg, value string }

// Name adds a required argument that names something.
func Name(clause *kingpin.CmdClause, arg, help string) *string {
	v := &name{arg: arg}
	clause.Arg(arg, help).Required().SetValue(v)
	return &v.value
}

// String implements kingpin.Value.
func (v *name) String() string { return v.value }

// Set implements kingpin.Value.
func (v *name) Set(s string) error {
	if s == "" {
		return fmt.Errorf("'%s' is empty", v.arg)
	}
	v.value = s
	return nil
}

// choice is a flag with a fixed set of words.
type choice struct {
	flag    string
	options []string
	value   string
}

// Choice adds a flag whose value is one of options.
func Choice(clause *kingpin.CmdClause, name, help, preset string, options ...string) *string {
	v := &choice{flag: name, options: options}
	f := clause.Flag(name, help).HintOptions(options...)
	if preset != "" {
		f = f.Default(preset)
	}
	f.SetValue(v)
	return &v.value
}

// String implements kingpin.Value.
func (v *choice) String() string { return v.value }

// Set implements kingpin.Value.
func (v *choice) Set(s string) error {
	if !slices.Contains(v.options, s) {
		return fmt.Errorf("--%s: invalid value %q; use one of %s", v.flag, s, strings.Join(v.options, ", "))
	}
	v.value = s
	return nil
}

// whole is a flag with a whole number.
type whole struct {
	flag     string
	min, max int64
	value    int64
}

// Whole adds a flag for a whole number from least to most.
func Whole(clause *kingpin.CmdClause, name, help string, preset, least, most int64) *int64 {
	v := &whole{flag: name, min: least, max: most}
	clause.Flag(name, help).Default(strconv.FormatInt(preset, 10)).SetValue(v)
	return &v.value
}

// String implements kingpin.Value.
func (v *whole) String() string { return strconv.FormatInt(v.value, 10) }

// Set implements kingpin.Value.
func (v *whole) Set(s string) error {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < v.min || n > v.max {
		return fmt.Errorf("--%s: %q is not a whole number from %d to %d", v.flag, s, v.min, v.max)
	}
	v.value = n
	return nil
}

// span is a flag with a duration as Prometheus writes it.
type span struct {
	flag  string
	value time.Duration
}

// Span adds a flag for a duration.
func Span(clause *kingpin.CmdClause, name, help string) *time.Duration {
	v := &span{flag: name}
	clause.Flag(name, help).PlaceHolder("DURATION").SetValue(v)
	return &v.value
}

// String implements kingpin.Value.
func (v *span) String() string { return model.Duration(v.value).String() }

// Set implements kingpin.Value.
func (v *span) Set(s string) error {
	d, err := model.ParseDuration(s)
	if err != nil || d <= 0 {
		return fmt.Errorf("--%s: %q is not a duration above 0, such as 30m or 2h", v.flag, s)
	}
	v.value = time.Duration(d)
	return nil
}
