package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/receiver"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/scenario"
)

func (c *commands) addTest() {
	clause := c.app.Command("test", "Run a playbook on made-up series, and check what backout does: the generated rules and the real engine, with a clock, "+
		"an Alertmanager and targets of their own. Nothing outside is read or changed. Exit status 1 if an expectation is not met.")
	files := clause.Arg("scenario", "File of a scenario; docs/testing.md has its keys.").Required().Strings()
	only := clause.Flag("run", "Run only the scenarios whose name or file matches.").PlaceHolder("REGEX").Regexp()
	verbose := clause.Flag("verbose", "Print the story of each scenario, also of those that pass.").Short('v').Bool()
	output := outputFlag(clause)
	c.add(clause, func(ctx context.Context) error {
		list, err := loadScenarios(*files, *only)
		if err != nil {
			return err
		}
		work := c.progress()
		results, err := runScenarios(ctx, list, work)
		work.done()
		if err != nil {
			return wrong("", "%w", err)
		}
		answer := newTested(results)
		if *output == outputJSON {
			err = c.printJSON(answer)
		} else {
			err = c.print(answer.text(*verbose, c.screen()))
		}
		if err == nil && !answer.OK {
			err = errAnswered
		}
		return err
	})
}

// loadScenarios reads all files, and reports the mistakes in all of them.
func loadScenarios(files []string, only *regexp.Regexp) (list []*scenario.Scenario, err error) {
	var errs []error
	for _, file := range files {
		sc, err := scenario.Load(file)
		switch {
		case err != nil:
			errs = append(errs, err)
		case only == nil || only.MatchString(sc.Name) || only.MatchString(file):
			list = append(list, sc)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, wrong("", "%w", err)
	}
	if len(list) == 0 {
		return nil, wrong("leave --run out to run all", "no scenario matches --run=%s", only)
	}
	return list, nil
}

// runScenarios runs scenarios next to each other, as many as there are processors.
func runScenarios(ctx context.Context, list []*scenario.Scenario, work *progress) ([]*scenario.Result, error) {
	results, errs := make([]*scenario.Result, len(list)), make([]error, len(list))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(list)) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(list); i = int(next.Add(1)) - 1 {
				work.say("scenario %d of %d: %s", i+1, len(list), list[i].Name)
				results[i], errs[i] = list[i].Run(ctx, receiver.Decode)
			}
		})
	}
	workers.Wait()
	return results, errors.Join(errs...)
}

// tested is the answer of test.
type tested struct {
	OK        bool             `json:"ok"`
	Passed    int              `json:"passed"`
	Failed    int              `json:"failed"`
	Scenarios []testedScenario `json:"scenarios"`
}

type testedScenario struct {
	OK bool `json:"ok"`
	*scenario.Result
}

func newTested(results []*scenario.Result) tested {
	t := tested{Scenarios: []testedScenario{}}
	for _, r := range results {
		t.Scenarios = append(t.Scenarios, testedScenario{r.OK(), r})
		if r.OK() {
			t.Passed++
		} else {
			t.Failed++
		}
	}
	t.OK = t.Failed == 0
	return t
}

// text is one line per scenario that passed, and the story of each other one.
func (t *tested) text(story bool, scr screen) string {
	var b strings.Builder
	for _, s := range t.Scenarios {
		b.WriteString(scenarioText(s.Result, story, scr))
	}
	if t.OK {
		b.WriteString(scr.paint(good, remediation.Counted(t.Passed, "scenario")+" passed") + "\n")
	} else {
		b.WriteString(scr.paint(bad, fmt.Sprintf("%d of %s failed", t.Failed, remediation.Counted(t.Passed+t.Failed, "scenario"))) + "\n")
	}
	return b.String()
}

// scenarioText is how one scenario went: one line if all was as expected, otherwise what
// was not, and what had happened until then.
func scenarioText(r *scenario.Result, story bool, scr screen) string {
	var b strings.Builder
	mark := scr.paint(good, "ok  ")
	if !r.OK() {
		mark = scr.paint(bad, "FAIL")
	}
	fmt.Fprintf(&b, "%s  %s\n", mark, clean(r.Name))
	until := model.Duration(0)
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "\n  %s:%d: at %s\n", clean(r.File), f.Line, f.At)
		b.WriteString(hanging("    expected  ", f.Expected))
		b.WriteString(hanging("    found     ", f.Found))
		if until = max(until, f.At); f.Later != nil {
			until = max(until, *f.Later)
			fmt.Fprintf(&b, "    It became so at %s.\n", *f.Later)
		}
	}
	if !r.OK() && !story {
		fmt.Fprintf(&b, "\n  What happened until %s\n", until)
	}
	if !r.OK() || story {
		if story {
			until = r.Length
		}
		b.WriteString(storyText(r.Story, until, scr) + "\n")
	}
	return b.String()
}

// storyText tells what happened until then, one moment per line.
func storyText(story []scenario.Moment, until model.Duration, scr screen) string {
	var b strings.Builder
	last := ""
	for _, m := range story {
		if m.At > until {
			break
		}
		at := m.At.String()
		if at == last { // said once
			at = ""
		} else {
			last = at
		}
		text := m.Title
		if m.Actor != "" && m.Actor != remediation.ActorEngine && m.Actor != remediation.ActorAlertmanager {
			text += " by " + m.Actor
		}
		if m.Measured != "" {
			text += " (" + m.Measured + ")"
		}
		if m.Why != "" {
			text += ": " + m.Why
		}
		line := hanging(fmt.Sprintf("  %8s  ", at), text)
		tones := map[string]tone{"bad": bad, "wait": attention, "good": good}
		b.WriteString(strings.Replace(line, m.Title, scr.paint(tones[m.Tone], m.Title), 1))
	}
	if len(story) == 0 {
		b.WriteString("            Nothing: no alert reached backout.\n")
	}
	return b.String()
}
