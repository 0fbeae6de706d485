package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/receiver/notification"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/scenario"
)

func (c *commands) addTest() {
	clause := c.app.Command("test", "Run a playbook on made-up series, and check what backout does: the generated rules and the real engine, with a clock, "+
		"an Alertmanager and targets of their own. Nothing outside is read or changed. Exit status 1 if an expectation is not met.")
	files := clause.Arg("scenario", "File of a scenario; docs/testing.md has its keys.").Required().Strings()
	only := clause.Flag("run", "Run only the scenarios whose name or file matches.").PlaceHolder("REGEX").Regexp()
	verbose := clause.Flag("verbose", "Print the story of each scenario, also of those that pass.").Short('v').Bool()
	output := c.outputFlag(clause, reflect.TypeFor[tested]())
	c.add(clause, func(ctx context.Context) error {
		list, err := loadScenarios(*files, *only)
		if err != nil {
			return err
		}
		c.sayExample(list)
		for _, sc := range list {
			for _, note := range sc.Notes() {
				_, _ = fmt.Fprintf(c.stderr, "note: %s\n", terminal.Clean(note))
			}
		}
		work := c.progress()
		results, err := runScenarios(ctx, list, work)
		work.Done()
		if err != nil {
			return wrong("", "%w", err)
		}
		answer := newTested(results)
		return c.answer(*output, answer, terminal.Scenarios(results, *verbose, c.screen()), answer.OK)
	})
}

// sayExample says which scenarios have no playbook of their own.
func (c *commands) sayExample(list []*scenario.Scenario) {
	n, service := 0, ""
	for _, sc := range list {
		if sc.Playbook == "" {
			n, service = n+1, sc.Service()
		}
	}
	if n > 0 {
		_, _ = fmt.Fprintf(c.stderr, "backout: %s without the key playbook: this is the built-in example, the playbook of %s\n", remediation.Counted(n, "scenario"), service)
	}
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
func runScenarios(ctx context.Context, list []*scenario.Scenario, work *terminal.Progress) ([]*scenario.Result, error) {
	results, errs := make([]*scenario.Result, len(list)), make([]error, len(list))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(list)) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(list); i = int(next.Add(1)) - 1 {
				work.Say("scenario %d of %d: %s", i+1, len(list), list[i].Name)
				results[i], errs[i] = list[i].Run(ctx, notification.Decode)
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
