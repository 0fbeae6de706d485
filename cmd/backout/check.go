package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/promslog"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/rules"
	"github.com/locotoki/backout/trust"
)

func (c *commands) addCheck() {
	clause := c.app.Command("check", "Check the configuration, the playbooks and their generated rules, and report all errors. Changes nothing.")
	files, output := c.settingsFlags(clause), c.outputFlag(clause, reflect.TypeFor[findings](), reflect.TypeFor[coverageFindings]())
	coverage := clause.Flag("coverage", "Show the rule, tests, route and plan of each bound in the playbooks; exit 1 if one is missing. With --url or --storage.dsn, show also when each plan was rehearsed.").Bool()
	from := c.sourceFlags(clause)
	c.add(clause, func(ctx context.Context) error {
		if !*coverage && from.given() {
			return wrong("add --coverage", "--url, --token-file and --storage.dsn need --coverage: check uses them only to read when plans were rehearsed")
		}
		found, err := files.check()
		if err != nil {
			return err
		}
		if *coverage && found.OK {
			return c.showCoverage(ctx, found, from, *output)
		}
		if *output == outputJSON {
			err = c.printJSON(found)
		} else {
			err = c.printFindings(found)
		}
		if err == nil && !found.OK {
			err = errAnsweredWrong
		}
		return err
	})
}

// findings are the answer of check.
type findings struct {
	OK       bool             `json:"ok"`
	Errors   alerts.Problems  `json:"errors"`
	Warnings []alerts.Problem `json:"warnings"`
	// Checked names the playbooks that are good.
	Checked []string `json:"checked"`

	playbooks []*alerts.Playbook
}

// printFindings writes errors to standard error, and the rest to standard output.
func (c *commands) printFindings(f findings) error {
	for _, p := range f.Errors {
		if _, err := fmt.Fprintln(c.stderr, "error: "+terminal.Problem(p)); err != nil {
			return err
		}
	}
	var b strings.Builder
	for _, p := range f.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", terminal.Problem(p))
	}
	switch {
	case !f.OK:
		fmt.Fprintf(&b, "%s, %s\n", remediation.Counted(len(f.Errors), "error"), remediation.Counted(len(f.Warnings), "warning"))
	case len(f.Warnings) > 0:
		fmt.Fprintf(&b, "ok: %s, with %s\n", strings.Join(f.Checked, ", "), remediation.Counted(len(f.Warnings), "warning"))
	default:
		fmt.Fprintf(&b, "ok: %s\n", strings.Join(f.Checked, ", "))
	}
	return c.print(b.String())
}

// problems splits an error into the problems that it joins, one per line; an error that
// only wraps several is one problem.
func problems(err error) []alerts.Problem {
	var many interface{ Unwrap() []error }
	var list alerts.Problems
	switch {
	case err == nil:
		return nil
	case errors.As(err, &list) && list.Error() == err.Error():
		return list
	case errors.As(err, &many) && errors.Join(many.Unwrap()...).Error() == err.Error():
		var all []alerts.Problem
		for _, e := range many.Unwrap() {
			all = append(all, problems(e)...)
		}
		return all
	}
	return []alerts.Problem{problemOf(err)}
}

// placed matches an error about a line of a file.
var placed = regexp.MustCompile(`^(\S+?):(\d+): (?s:(.*))$`)

func problemOf(err error) alerts.Problem {
	message, try := hint.Of(err)
	p := alerts.Problem{Message: message, Try: try}
	if m := placed.FindStringSubmatch(message); m != nil {
		if n, err := strconv.Atoi(m[2]); err == nil {
			p.File, p.Line, p.Message = m[1], n, m[3]
		}
	}
	return p
}

// check reads all files and generates the rules, and continues if one of them has
// errors.
func (f settingsFlags) check() (findings, error) {
	config, err := f.loadConfig()
	errs := []error{err}
	kinds, err := actionKinds(config, nil, promslog.NewNopLogger())
	if err != nil {
		return findings{}, err
	}
	found := findings{Errors: alerts.Problems{}, Warnings: []alerts.Problem{}, Checked: []string{}}
	playbooks, others, err := f.loadPlaybooks(playbookKinds(kinds.list))
	errs = append(errs, err)
	if u := config.ExternalURL; u != nil && u.Scheme == "http" && !trust.Loopback(u.Hostname()) && len(config.Tokens) > 0 {
		found.Warnings = append(found.Warnings, alerts.Problem{
			File: *f.configFile, Line: 1, Message: "external_url is http: tokens arrive without TLS, and anyone on the network path can read them", Try: "--web.config.file with a certificate, and external_url: https://" + u.Host,
		})
	}
	found.Warnings = append(found.Warnings, limitWarnings(*f.configFile, config, playbooks)...)
	if errs[0] == nil && *f.configFile != "" && len(*f.playbookFiles) > 0 {
		found.Errors = append(found.Errors, outsideProjects(config.DockerProjects, playbooks)...)
	}
	for _, pb := range slices.Concat(playbooks, others) {
		good := slices.Contains(playbooks, pb)
		if good {
			found.Warnings = append(found.Warnings, pb.Warnings()...)
		}
		judged, err := rules.Check(pb)
		found.Errors = append(found.Errors, judged.Errors...)
		found.Warnings = append(found.Warnings, judged.Warnings...)
		errs = append(errs, err)
		if err != nil || len(judged.Errors) > 0 || !good {
			continue
		}
		found.playbooks = append(found.playbooks, pb)
		found.Checked = append(found.Checked, pb.Service+" "+pb.Release.Version)
	}
	found.Errors = append(found.Errors, problems(errors.Join(errs...))...).Sorted()
	found.OK = len(found.Errors) == 0
	return found, kinds.Close()
}
