package docker

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/remediation"
)

var (
	_ remediation.SelfChecking = (*flagOff)(nil)
	_ remediation.Sweeper      = (*flagOff)(nil)
)

// Checks implements remediation.SelfChecking.
func (a *flagOff) Checks() []remediation.PreflightCheck {
	return []remediation.PreflightCheck{
		a.Known(),
		{ID: "flag/" + a.flag.Name + "/lasts", Name: ".env is writable and controls " + a.flag.Name, Run: a.checkLasts},
		{ID: "flag/" + a.flag.Name + "/off", Name: a.flag.Name + "=" + a.flag.Off + " is accepted, and the service falls back", Run: a.checkOff},
	}
}

// Sweep implements remediation.Sweeper.
func (a *flagOff) Sweep(ctx context.Context) error { return a.c.sweep(ctx, a.target.Compose) }

// Known checks that the service knows the flag.
func (a *flagOff) Known() remediation.PreflightCheck {
	return remediation.PreflightCheck{ID: "flag/" + a.flag.Name + "/known", Name: "the service knows " + a.flag.Name, Run: a.checkKnown}
}

func (a *flagOff) checkKnown(ctx context.Context) remediation.Result {
	if address := a.target.Probe.Flags; address != "" {
		return a.c.Probe.Knows(ctx, address, a.flag.Name)
	}
	f, err := a.c.FoundWhole(ctx, a.target.Compose)
	if err != nil {
		return remediation.ResultOf(doubtful(ctx, err))
	}
	d, err := f.Definition()
	if err != nil {
		return remediation.ResultOf(err)
	}
	known := d.Sets(a.flag.Name)
	for _, r := range f.Replicas {
		known = known || r.Variable(a.flag.Name).Set
	}
	if !known {
		return remediation.Failed(fmt.Sprintf("neither a container of %s nor %s has the variable %s", f.Service, strings.Join(d.Files, ", "), a.flag.Name),
			"fix the flag's name under flags:, or pass it to the service there")
	}
	return remediation.Unknown("the service gets the variable; it is unknown whether its code reads it", "set probe: {flags: ...} to an address that lists flags, or sign it off")
}

// checkLasts sees that a flag written into .env is what the next container gets.
func (a *flagOff) checkLasts(ctx context.Context) remediation.Result {
	f, err := a.c.FoundWhole(ctx, a.target.Compose)
	if err != nil {
		return remediation.ResultOf(doubtful(ctx, err))
	}
	l, err := lastingOf(f, a.flag)
	if err != nil {
		return remediation.ResultOf(err)
	}
	name, files := a.flag.Name, strings.Join(l.Files, ", ")
	if l.Override != "" && l.extra.Missing == "" {
		files += ", " + l.Override
	}
	switch {
	case l.literal && !l.now.Set:
		return remediation.Failed(fmt.Sprintf("no environment: in %s takes %s from .env", files, name), fmt.Sprintf("%s: ${%s:-%s} there", name, name, a.flag.Off))
	case l.literal:
		return remediation.Failed(fmt.Sprintf("%s is set in %s itself, which overrules .env", name, files), fmt.Sprintf("%s: ${%s:-%s} there", name, name, a.flag.Off))
	case l.shell && l.env.Entry.Raw == "":
		return remediation.Failed(fmt.Sprintf("%s is not set in %s, and a container runs with another value than the files give without it", name, l.env.Path),
			fmt.Sprintf("write %s=VALUE into %s, with the value that runs now", name, l.env.Path))
	case l.shell:
		return remediation.Failed(fmt.Sprintf("a container runs with another %s than the files give: a shell's variable overrules .env", name),
			fmt.Sprintf("unset %s in that shell, write it into .env, and docker-compose up -d %s", name, f.Service))
	}
	if err := a.c.Projects.MayWrite(l.env.Path, l.env.Missing); err != nil {
		return remediation.Failed(fmt.Sprintf("%s cannot be written: %s", l.env.Path, err), "give backout write permission for it and its folder")
	}
	return remediation.Passed(l.env.Path + " is writable and decides")
}

// checkOff starts a container with the flag off, and asks it.
func (a *flagOff) checkOff(ctx context.Context) remediation.Result {
	seen, f := aside{c: a.c, target: a.target, check: a.check(), edit: func(to *container.Config) {
		to.Env = setVariable(to.Env, a.flag.Name, a.want())
	}}.run(ctx)
	if f.Status != remediation.Pass {
		return f
	}
	if a.target.Probe.Flags == "" {
		expected := ""
		if a.flag.Fallback != "" {
			expected = " (expected: " + a.flag.Fallback + ")"
		}
		return remediation.Unknown(seen+" with "+a.flag.Name+"="+a.flag.Off+"; the fallback behaviour cannot be observed"+expected,
			"set probe: {flags: ...} to an address that lists flags, or sign it off")
	}
	return remediation.Passed(seen + ", serves " + a.flag.Name + " as off, and was removed")
}
