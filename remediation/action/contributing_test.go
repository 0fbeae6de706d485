package action

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

// The example of CONTRIBUTING.md is maintenance_test.go: compiled here, put
// through the conformance suite, and the same text.

func TestTheExampleInTheGuideIsTheOneThatIsTested(t *testing.T) {
	guide, err := os.ReadFile("../../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("maintenance_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(guide), "```go\n")
	shown, rest, ended := strings.Cut(rest, "```\n")
	if !found || !ended || strings.Contains(rest, "```go\n") {
		t.Fatal("CONTRIBUTING.md has not exactly one block of Go")
	}
	if shown != string(example) {
		t.Error("the block of Go in CONTRIBUTING.md is not maintenance_test.go: copy that file into it")
	}
}

// disk is Files in a real folder. Its n-th change meets a fault, where one is set.
type disk struct {
	changes *int
	fault   actiontest.Fault
	at, n   int
	hit     bool
}

var errCut = errors.New("cut off by the test")

func (d *disk) Read(_ context.Context, path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

func (d *disk) Write(ctx context.Context, path, content string) error {
	return d.change(ctx, func() error {
		if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
			return err
		}
		return os.Rename(path+".new", path)
	})
}

func (d *disk) Remove(ctx context.Context, path string) error {
	return d.change(ctx, func() error { return os.Remove(path) })
}

func (d *disk) change(ctx context.Context, effect func() error) error {
	d.n++
	if d.fault == "" || d.n-1 != d.at {
		*d.changes++
		return effect()
	}
	d.hit = true
	if d.fault == actiontest.Before {
		return errCut
	}
	*d.changes++
	if err := effect(); err != nil {
		return err
	}
	if d.fault == actiontest.Hang {
		return actiontest.Unanswered(ctx)
	}
	return errCut
}

func TestTheExampleConforms(t *testing.T) {
	actiontest.Run(t, func(t *testing.T) *actiontest.Fixture {
		changes := 0
		params := &maintenanceParams{File: filepath.Join(t.TempDir(), "closed")}
		bind := func(t *testing.T, f Files) remediation.Action {
			t.Helper()
			a, err := maintenance{f}.Bind(playbook(), params)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		whole := &disk{changes: &changes}
		return &actiontest.Fixture{
			Risk:   maintenance{}.Risk(),
			Action: bind(t, whole),
			State: func(t *testing.T) string {
				by, err := whole.Read(t.Context(), params.File)
				if err != nil {
					t.Fatal(err)
				}
				return fmt.Sprintf("closed by %q", by)
			},
			Effects: func(*testing.T) int { return changes },
			Meddle: func(t *testing.T) { // somebody opens the site
				if err := os.Remove(params.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				changes++
			},
			Cut: func(t *testing.T, n int, fault actiontest.Fault) (remediation.Action, func() bool) {
				broken := &disk{changes: &changes, fault: fault, at: n}
				return bind(t, broken), func() bool { return broken.hit }
			},
		}
	})
}

func TestASiteThatSomebodyElseClosedIsNotOpenedByUndo(t *testing.T) {
	changes := 0
	file := filepath.Join(t.TempDir(), "closed")
	a := &closing{&disk{changes: &changes}, file}
	before, err := a.Look(t.Context(), "ours")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Undo(t.Context(), "ours", before.Snapshot); err != nil {
		t.Fatal(err)
	}
	if by, err := a.files.Read(t.Context(), file); err != nil || by != "theirs" {
		t.Errorf("closed by %q: %v", by, err)
	}
}

func TestAPlaybookCanNameTheExampleOnceItIsListed(t *testing.T) {
	source, err := os.ReadFile("../../testdata/playbooks/good/smallest.yaml")
	if err != nil {
		t.Fatal(err)
	}
	step := func(params string) string {
		return strings.Replace(string(source), "{action: image_retag, settle: 5m}", "{action: maintenance, settle: 5m"+params+"}", 1)
	}
	var listed []alerts.ActionKind
	for _, k := range append(Kinds(Tools{Flags: &noFlags{}}), maintenance{}) { // the one line
		listed = append(listed, k)
	}
	for params, want := range map[string]string{
		", file: /srv/site/closed":           "",
		"":                                   `"" is not an absolute path`,
		", file: closed":                     `"closed" is not an absolute path`,
		", file: /srv/site/closed, mode: on": `unknown key "mode"`,
	} {
		pb, err := alerts.Parse("playbook.yaml", []byte(step(params)), listed)
		switch {
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %s", params, err, want)
		case want == "" && err != nil:
			t.Errorf("%q: %v", params, err)
		case want == "":
			s := pb.Plan("ladder").Steps[1]
			if got := (maintenance{}).Target(pb, s.Params); got != "file:/srv/site/closed" || s.Risk != alerts.Reversible {
				t.Errorf("target %q, risk %s", got, s.Risk)
			}
		}
	}
}
