package docker

import (
	"fmt"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
	"github.com/locotoki/backout/remediation/docker/projectfile"
)

// lasting is where a flag lasts: the env file that decides on it (.env) and, where that does not
// decide, an override file.
type lasting struct {
	compose.Project
	// defined is the service as the files are.
	defined compose.Definition
	env     projectfile.FileState
	extra   projectfile.FileState

	// now is what a container created from a clean shell would get; envOff and
	// extraOff tell what the two files hold.
	now              compose.Setting
	envOff, extraOff bool
	// literal: the compose files decide, whatever .env says. shell: a running
	// replica has another value than the files give, so a shell had one.
	literal, shell bool
	// whenOff and asIs ask compose for its hash with the flag written, and with the
	// files as they were read.
	whenOff, asIs compose.HashQuestion
}

// lastingOf reads where a flag lasts. It changes nothing.
func lastingOf(f *fleet.Fleet, flag alerts.Flag) (*lasting, error) {
	p, err := f.Project()
	if err != nil {
		return nil, err
	}
	l := &lasting{Project: p}
	path, env, missing, err := p.EnvFile(flag.Name)
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
	if l.Override != "" {
		if extra, missing, err = f.Folders.ReadOptional(l.Override); err != nil {
			return nil, err
		}
		l.extra = projectfile.FileState{Path: l.Override, Missing: missing}
		if l.extra.Entry, err = projectfile.ReadOverride(extra, f.Service, flag.Name); err != nil {
			return nil, fmt.Errorf("%s: %w", l.Override, err)
		}
		l.extraOff = projectfile.CheckOverride(extra, f.Service, flag.Name, flag.Off) == nil
	}

	want := compose.Setting{Value: flag.Off, Set: true}
	ids, _ := f.Images()
	now, err := p.Define(f.Service, nil)
	if err != nil {
		return nil, err
	}
	l.defined, l.now, l.asIs = now, now.Variable(flag.Name), now.Question(ids, "")
	after, err := p.Define(f.Service, compose.Contents{path: envAfter})
	if err != nil {
		return nil, err
	}
	l.literal = after.Variable(flag.Name) != want
	l.whenOff = after.Question(ids, "")
	if !l.envOff {
		l.whenOff.Assume = flag.Name + "=" + flag.Off
	}
	for _, r := range f.Replicas {
		if v := r.Variable(flag.Name); r.Running() && v.Set && v != want && v != l.now {
			l.shell = true
		}
	}
	if l.literal && l.Explicit {
		return nil, hint.Add(fmt.Errorf("%s is set in %s itself, and the files are given explicitly (-f or COMPOSE_FILE), so no override file is read", flag.Name, strings.Join(l.Files, ", ")),
			"write %s: ${%s:-%s} there", flag.Name, flag.Name, flag.Off)
	}
	if l.literal && !l.extraOff {
		return l, l.overrides(f.Service, flag, extra)
	}
	return l, nil
}

// overrides sees that an override file would decide on a flag, which a second document
// in a file may keep it from.
func (l *lasting) overrides(service string, flag alerts.Flag, extra []byte) error {
	extra, err := projectfile.SetOverride(extra, service, flag.Name, flag.Off)
	if err != nil {
		return fmt.Errorf("%s: %w", l.Override, err)
	}
	d, err := l.Define(service, compose.Contents{l.Override: extra})
	if err == nil && d.Variable(flag.Name) != (compose.Setting{Value: flag.Off, Set: true}) {
		err = hint.Add(fmt.Errorf("%s is set in %s itself, and no override file can overrule it", flag.Name, strings.Join(l.Files, ", ")),
			"write %s: ${%s:-%s} there", flag.Name, flag.Name, flag.Off)
	}
	return err
}

// predictable reports whether the compose tool can be asked before the files are
// written: a variable in its shell has the effect that .env is going to have.
func (l *lasting) predictable() bool { return !l.literal && !l.shell }
