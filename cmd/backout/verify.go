package main

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/prometheus/common/promslog"

	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation"
)

// imageTag matches a version that is a valid image tag.
var imageTag = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

func (c *commands) addVerify() {
	clause := c.app.Command("verify", "Check that a service runs a version and works: its image, the version it reports, "+
		"its health, and the playbook's smoke checks. Needs no server and changes nothing. Exit status 1 if a check failed.")
	release := clause.Flag("version", "The expected version, such as v1.0.0: the image's tag.").Required().PlaceHolder("VERSION").String()
	files, output := c.settingsFlags(clause), c.outputFlag(clause, reflect.TypeFor[verification]())
	c.add(clause, func(ctx context.Context) error {
		if !imageTag.MatchString(*release) {
			return wrong("--version=v1.0.0", "--version: invalid image tag %q", *release)
		}
		v, err := c.verify(ctx, files, *release)
		if err != nil {
			return err
		}
		return c.answer(*output, v, v.text(), v.OK)
	})
}

// verification is the answer of verify.
type verification struct {
	OK      bool                `json:"ok"`
	Service string              `json:"service"`
	Version string              `json:"version"`
	Checks  []remediation.Check `json:"checks"`
}

func (c *commands) verify(ctx context.Context, files settingsFlags, release string) (v verification, err error) {
	config, err := files.loadConfig()
	if err != nil {
		return v, wrong("", "%w", err)
	}
	kinds, err := actionKinds(config, c.environ, promslog.NewNopLogger())
	if err != nil {
		return v, err
	}
	defer func() { err = closing(kinds, err) }()
	set, err := files.load(playbookKinds(kinds.list))
	if err != nil {
		return v, err
	}
	if n := len(set.playbooks); n != 1 {
		return v, wrong("verify once for each --playbook.file", "%d playbooks are given, but --version is for one service", n)
	}
	pb := set.playbooks[0]
	v = verification{OK: true, Service: pb.Service, Version: release}
	say := c.progress()
	say.Say("checking the image, the version, the health and the smoke checks of %s", terminal.Clean(pb.Service))
	v.Checks, err = kinds.services.Verify(ctx, pb.Target, "", release)
	say.Done()
	if err = cmp.Or(ctx.Err(), err); err != nil {
		return v, fmt.Errorf("verify %s: %w", pb.Service, err)
	}
	for _, check := range v.Checks {
		v.OK = v.OK && check.OK
	}
	return v, nil
}

// text is the answer for people: a line for each check, and the result.
func (v verification) text() string {
	const indent = "        "
	var b strings.Builder
	failed := 0
	for _, check := range v.Checks {
		word := "ok"
		if !check.OK {
			word = "failed"
			failed++
		}
		b.WriteString(fmt.Sprintf("%-*s", len(indent), word) + strings.TrimPrefix(terminal.Wrap(indent, check.Name+": "+check.Detail), indent))
	}
	if failed > 0 {
		b.WriteString(terminal.Wrap("", fmt.Sprintf("%s is not verified as %s: %d of %s failed.", v.Service, v.Version, failed, remediation.Counted(len(v.Checks), "check"))))
	} else {
		b.WriteString(terminal.Wrap("", fmt.Sprintf("%s runs %s and works: %s.", v.Service, v.Version, remediation.Counted(len(v.Checks), "check"))))
	}
	return b.String()
}
