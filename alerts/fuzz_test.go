package alerts_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/locotoki/backout/alerts"
)

// Whatever the file: no panic, and either a playbook that keeps its promises
// or problems that stand in the file.
func FuzzParse(f *testing.F) {
	paths, err := filepath.Glob(filepath.Join(playbooks, "*", "*.yaml"))
	if err != nil || len(paths) == 0 {
		f.Fatalf("no playbooks: %v", err)
	}
	for _, p := range paths {
		src, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		pb, err := alerts.Parse("fuzz.yaml", src, kinds())
		if err == nil {
			promises(t, pb)
			return
		}
		var ps alerts.Problems
		if pb != nil || !errors.As(err, &ps) || len(ps) == 0 {
			t.Fatalf("got %v and %v", pb != nil, err)
		}
		for _, p := range ps {
			if p.File != "fuzz.yaml" || p.Line < 0 || p.Message == "" || p.Try == "" {
				t.Errorf("%+v", p)
			}
		}
		if !slices.IsSortedFunc(ps, func(a, b alerts.Problem) int { return a.Line - b.Line }) {
			t.Errorf("not sorted:\n%v", ps)
		}
	})
}

// promises checks what the rest of the program relies on without looking.
func promises(t *testing.T, pb *alerts.Playbook) {
	t.Helper()
	s := pb.ScrapeInterval
	for _, tr := range pb.Triggers {
		plan := pb.Plan(tr.Plan)
		if plan == nil {
			t.Fatalf("trigger %s has no plan", tr.Name)
		}
		if tr.Signal != "" {
			continue
		}
		w := tr.Recovery.Window
		if pb.Indicator(tr.Indicator) == nil || tr.Span() <= 0 || w < 4*s || (tr.Above == nil) == (tr.Below == nil) {
			t.Errorf("trigger %+v", tr)
		}
		for _, step := range plan.Steps {
			if step.Settle < 2*w+4*s || step.Timeout <= 0 || step.Params == nil {
				t.Errorf("step %+v of a trigger with W = %s", step, w)
			}
			if step.Risk == alerts.Lossy && (step.Approval == nil || step.Approval.Timeout <= 0) {
				t.Errorf("a lossy step without approval: %+v", step)
			}
		}
	}
	for _, st := range pb.Stages {
		for _, c := range st.Success {
			if (c.Window > 0) == (c.Sustained > 0) || pb.Indicator(c.Indicator) == nil {
				t.Errorf("criterion %+v", c)
			}
		}
	}
	places := 0
	for _, named := range []bool{
		pb.Target.Compose.Service != "" && pb.Target.Compose.ProjectDir != "",
		pb.Target.Kubernetes != nil && pb.Target.Kubernetes.Name() != "",
		pb.Target.Swarm != nil && pb.Target.Swarm.Service != "",
	} {
		if named {
			places++
		}
	}
	if places != 1 || s <= 0 || pb.Limits.Breaker < 1 {
		t.Errorf("%+v", pb)
	}
	pb.Warnings()
}
