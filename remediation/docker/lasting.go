package docker

import (
	"fmt"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/docker/projectfile"
)

// lasting is where a flag lasts: the env file that decides on it (.env) and, where that does not
// decide, an override file.
type lasting struct {
	project
	// defined is the service as the files are.
	defined definition
	env     projectfile.FileState
	extra   projectfile.FileState

	// now is what a container created from a clean shell would get; envOff and
	// extraOff tell what the two files hold.
	now              setting
	envOff, extraOff bool
	// literal: the compose files decide, whatever .env says. shell: a running
	// replica has another value than the files give, so a shell had one.
	literal, shell bool
	// whenOff and asIs ask compose for its hash with the flag written, and with the
	// files as they were read.
	whenOff, asIs hashQuestion
}

// lastingOf reads where a flag lasts. It changes nothing.
func (c *Client) lastingOf(f *fleet, flag alerts.Flag) (*lasting, error) {
	p, err := c.locate(f)
	if err != nil {
		return nil, err
	}
	l := &lasting{project: p}
	path, env, missing, err := c.envFile(p, flag.Name)
	if err != nil {
		return nil, err
	}
	l.env = projectfile.FileState{Path: path, Missing: missing, Entry: projectfile.ReadEnv(env, flag.Name)}
	value, set := projectfile.EnvValue(env, flag.Name)
	l.envOff = set && value == flag.Off
	envAfter, err := projectfile.SetEnv(env, flag.Name, flag.Off)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}

	var extra []byte
	if l.override != "" {
		if extra, missing, err = c.files.ReadOptional(l.override); err != nil {
			return nil, err
		}
		l.extra = projectfile.FileState{Path: l.override, Missing: missing}
		if l.extra.Entry, err = projectfile.ReadOverride(extra, f.service, flag.Name); err != nil {
			return nil, fmt.Errorf("%s: %w", l.override, err)
		}
		l.extraOff = projectfile.CheckOverride(extra, f.service, flag.Name, flag.Off) == nil
	}

	want := setting{flag.Off, true}
	now, err := c.define(p, f.service, nil)
	if err != nil {
		return nil, err
	}
	l.defined, l.now, l.asIs = now, now.variable(flag.Name), now.ask(f)
	after, err := c.define(p, f.service, contents{path: envAfter})
	if err != nil {
		return nil, err
	}
	l.literal = after.variable(flag.Name) != want
	l.whenOff = after.ask(f)
	if !l.envOff {
		l.whenOff.assume = flag.Name + "=" + flag.Off
	}
	for _, r := range f.replicas {
		if v := r.variable(flag.Name); r.running() && v.set && v != want && v != l.now {
			l.shell = true
		}
	}
	if l.literal && l.explicit {
		return nil, hint.Add(fmt.Errorf("%s is set in %s itself, and the files are given explicitly (-f or COMPOSE_FILE), so no override file is read", flag.Name, strings.Join(l.files, ", ")),
			"write %s: ${%s:-%s} there", flag.Name, flag.Name, flag.Off)
	}
	if l.literal && !l.extraOff {
		return l, c.overrides(l, f.service, flag, extra)
	}
	return l, nil
}

// overrides sees that an override file would decide on a flag, which a second document
// in a file may keep it from.
func (c *Client) overrides(l *lasting, service string, flag alerts.Flag, extra []byte) error {
	extra, err := projectfile.SetOverride(extra, service, flag.Name, flag.Off)
	if err != nil {
		return fmt.Errorf("%s: %w", l.override, err)
	}
	d, err := c.define(l.project, service, contents{l.override: extra})
	if err == nil && d.variable(flag.Name) != (setting{flag.Off, true}) {
		err = hint.Add(fmt.Errorf("%s is set in %s itself, and no override file can overrule it", flag.Name, strings.Join(l.files, ", ")),
			"write %s: ${%s:-%s} there", flag.Name, flag.Name, flag.Off)
	}
	return err
}

// predictable reports whether the compose tool can be asked before the files are
// written: a variable in its shell has the effect that .env is going to have.
func (l *lasting) predictable() bool { return !l.literal && !l.shell }
