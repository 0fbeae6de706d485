package docker

import (
	"fmt"
	"strings"

	"github.com/locotoki/backout/alerts"
)

// lasting is where a flag lasts: the project's .env and, where that does not
// decide, an override file.
type lasting struct {
	project
	env   fileState[envEntry]
	extra fileState[overrideEntry]

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

// fileState is one file's part of a snapshot.
type fileState[E any] struct {
	Path string `json:"path"`
	// Missing is "yes" where the file was not there.
	Missing string `json:"missing,omitempty"`
	Entry   E      `json:"entry"`
}

// lastingOf reads where a flag lasts. It changes nothing.
func (c *Client) lastingOf(f *fleet, flag alerts.Flag) (*lasting, error) {
	p, err := c.locate(f)
	if err != nil {
		return nil, err
	}
	l := &lasting{project: p}
	env, missing, err := c.readOptional(l.envPath)
	if err != nil {
		return nil, err
	}
	l.env = fileState[envEntry]{Path: l.envPath, Missing: missing, Entry: readEnvEntry(env, flag.Name)}
	if b, ok := lastEnv(env, flag.Name); ok && !b.bare {
		l.envOff = b.value == flag.Off
	}
	envAfter, err := setEnv(env, flag.Name, flag.Off)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.envPath, err)
	}

	if l.override != "" {
		extra, missing, err := c.readOptional(l.override)
		if err != nil {
			return nil, err
		}
		l.extra = fileState[overrideEntry]{Path: l.override, Missing: missing}
		if l.extra.Entry, err = readOverrideEntry(extra, f.service, flag.Name); err != nil {
			return nil, fmt.Errorf("%s: %w", l.override, err)
		}
		l.extraOff = checkOverride(extra, f.service, flag.Name, flag.Off) == nil
	}

	resolve := func(env []byte) (setting, hashQuestion, error) {
		r, files, read := c.reader(l.project, env)
		s, found, err := r.variable(files, f.service, flag.Name)
		if err == nil && !found {
			err = fmt.Errorf("service %s is in none of %s", f.service, strings.Join(files, ", "))
		}
		return s, l.ask(f, read), err
	}
	want := setting{flag.Off, true}
	// Before .env has the flag, the files may be incomplete: ${FLAG:?}.
	if l.now, l.asIs, err = resolve(env); err != nil {
		l.now = setting{}
	}
	after, question, err := resolve(envAfter)
	if err != nil {
		return nil, err
	}
	l.literal = after != want
	l.whenOff = question
	if !l.envOff {
		l.whenOff.assume = flag.Name + "=" + flag.Off
	}
	for _, r := range f.replicas {
		if v := r.variable(flag.Name); r.running() && v.set && v != want && v != l.now {
			l.shell = true
		}
	}
	if l.literal && l.explicit {
		return nil, fmt.Errorf("%s is set in %s itself, and these files are named by hand (-f or COMPOSE_FILE), so that no override file would be read; try: write %s: ${%s:-%s} there",
			flag.Name, strings.Join(l.files, ", "), flag.Name, flag.Name, flag.Off)
	}
	return l, nil
}

// predictable tells whether the compose tool can be asked before the files are
// written: a variable in its shell has the effect that .env is going to have.
func (l *lasting) predictable() bool { return !l.literal && !l.shell }

func environment(env []byte) map[string]setting {
	m := map[string]setting{}
	for _, b := range parseEnv(env) {
		if !b.bare {
			m[b.key] = setting{b.value, true}
		}
	}
	return m
}
