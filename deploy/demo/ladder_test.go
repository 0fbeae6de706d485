package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/locotoki/backout/deploy/demo/breakage"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// everythingFails breaks the feature's requests whatever anybody does.
var everythingFails = breakage.Breakage{Errors: 0.5, DespiteFlag: true}

// tellStory sees one of the demo's stories through, stage by stage.
func tellStory(t *testing.T, s *stack, name string) *story {
	t.Helper()
	sc, err := scenarioOf(name)
	must(t, err)
	var said bytes.Buffer
	st := &story{scenario: sc, stack: s, out: &printer{out: &said}, log: &log{stack: s}, within: generous}
	if err := st.tell(t.Context()); err != nil {
		t.Fatalf("%v, after:\n%s", err, said.String())
	}
	t.Logf("what the demo says:\n%s", said.String())
	inc, err := s.onlyIncident(t.Context())
	must(t, err)
	if inc.State != remediation.Closed {
		t.Errorf("the incident is %s, not closed", inc.State)
	}
	return st
}

func TestABreachOfTheNewCodeIsCuredByTheOldImage(t *testing.T) {
	t.Parallel()
	s := runningStack(t, "image", asUsual)
	displaced, err := s.engine.imageID(t.Context(), s.image+":latest")
	must(t, err)
	st := tellStory(t, s, "image")

	s.wantSteps(t, st.log, "flag_off", "image_retag")
	s.wantOneContainer(t, oldVersion)
	s.wantSchema(t, newVersion)
	// The displaced image keeps a name that is no version's: a prune, or the next build, cannot take it.
	names, err := s.engine.tags(t.Context(), s.image)
	must(t, err)
	kept := ""
	for _, name := range names {
		id, err := s.engine.imageID(t.Context(), name)
		must(t, err)
		if id == displaced && name != s.image+":"+newVersion {
			kept = name
		}
	}
	if kept == "" {
		t.Errorf("the displaced image has no name of its own among %v", names)
	}
}

func TestABreachOfTheNewSchemaIsCuredByNothingButTheOldOne(t *testing.T) {
	t.Parallel()
	s := runningStack(t, "schema", asUsual)
	st := tellStory(t, s, "schema")

	s.wantSteps(t, st.log, "flag_off", "image_retag", "schema_rollback")
	s.wantOneContainer(t, oldVersion)
	s.wantSchema(t, oldVersion)
	s.wantSnapshot(t, st.log)
}

// wantSteps fails the test unless these actions, and no others, were begun and
// verified, each once and in this order.
func (s *stack) wantSteps(t *testing.T, l *log, actions ...string) {
	t.Helper()
	s.wantEach(t, l, audit.KindIntent, actions)
	s.wantEach(t, l, audit.KindVerified, actions)
}

// wantEach fails the test unless the entries of a kind are of these actions.
func (s *stack) wantEach(t *testing.T, l *log, kind audit.Kind, actions []string) {
	t.Helper()
	var seen []string
	for _, e := range kinds(t, l, kind) {
		seen = append(seen, e.Action)
	}
	if !slices.Equal(seen, actions) {
		t.Errorf("the %s entries are of %v, not of %v", kind, seen, actions)
	}
}

// wantOneContainer fails the test unless one container is there, which runs a
// version's image with the flag off.
func (s *stack) wantOneContainer(t *testing.T, version string) {
	t.Helper()
	ctx := t.Context()
	list, err := s.engine.containers(ctx, s.project)
	must(t, err)
	if len(list) != 1 || list[0].State != "running" {
		t.Fatalf("the project's containers are %v, not one that runs", list)
	}
	if want := s.idOf(t, version); list[0].ImageID != want {
		t.Errorf("the container runs image %s, and %s is %s", list[0].ImageID, version, want)
	}
	wantFlag(t, s, "0")
}

func (s *stack) wantSchema(t *testing.T, version string) {
	t.Helper()
	got, err := s.schema(t.Context())
	must(t, err)
	if "v"+got != version {
		t.Errorf("the schema is at version %s, not at that of %s", got, version)
	}
}

// wantSnapshot fails the test unless the last snapshot is where the audit log
// says, as it says, and holds what the undo script dropped.
func (s *stack) wantSnapshot(t *testing.T, l *log) {
	t.Helper()
	var path, sum string
	var size int64
	for _, e := range kinds(t, l, audit.KindOutcome) {
		if e.Action == "schema_rollback" {
			path, size, sum = snapshotOf(&e)
		}
	}
	text, err := os.ReadFile(path)
	must(t, err)
	if got := sha256.Sum256(text); int64(len(text)) != size || hex.EncodeToString(got[:]) != sum {
		t.Errorf("%s has %d bytes and SHA-256 %x; the audit log says %d and %s", path, len(text), got, size, sum)
	}
	list, err := exec.CommandContext(t.Context(), "pg_restore", "--list", path).CombinedOutput()
	if err != nil || !strings.Contains(string(list), "trend_totals") {
		t.Errorf("pg_restore --list %s: %v\n%s", path, err, list)
	}
}

func TestAPersonsChangeBetweenStepsIsNeitherOverwrittenNorUndone(t *testing.T) {
	t.Parallel()
	s := runningStack(t, "human", asUsual)
	ctx := t.Context()
	l := &log{stack: s}
	breakNow(t, s, everythingFails)

	// While the first step settles: a setting of another feature, and a comment. On a
	// slow machine docker-compose takes longer than that: the next step waits for it.
	s.untilStep(t, l, audit.KindVerified, "flag_off")
	_, err := s.command(ctx, "freeze", "--reason=a setting is changed by hand")
	must(t, err)
	must(t, s.setEnv("FEATURE_CROSS_PLATFORM", "1"))
	must(t, s.addToEnv("# asked for by the team in Lisbon\n"))
	must(t, s.up(ctx))
	wantFlag(t, s, "0")
	_, err = s.command(ctx, "thaw", "--reason=it is changed")
	must(t, err)

	s.untilStep(t, l, audit.KindVerified, "image_retag")
	s.wantOneContainer(t, oldVersion)

	// While a commander is asked: all of it away and back again.
	untilHeld(t, s, remediation.HoldApproval)
	must(t, s.compose(ctx, "down"))
	must(t, s.up(ctx))
	s.wantOneContainer(t, oldVersion)

	until(t, "the answer is taken", func(ctx context.Context) error {
		inc := untilHeld(t, s, remediation.HoldApproval)
		_, err := s.command(ctx, "deny", inc.ID, inc.Next.Step, "--reason=not without the DBA")
		return err
	})
	s.untilExhausted(t, "schema_rollback")
	s.wantOneContainer(t, oldVersion)
	s.wantSchema(t, newVersion)
	env, _, err := s.inspect(ctx)
	must(t, err)
	text, err := os.ReadFile(s.path("project", ".env"))
	must(t, err)
	if env["FEATURE_CROSS_PLATFORM"] != "1" || !strings.Contains(string(text), "Lisbon") {
		t.Errorf("what a human set is gone: %q in the container, and .env is\n%s", env["FEATURE_CROSS_PLATFORM"], text)
	}
	if _, err := s.verify(ctx); err != nil {
		t.Error(err)
	}
}

// untilStep waits for an entry of a kind about an action.
func (s *stack) untilStep(t *testing.T, l *log, kind audit.Kind, action string) *audit.Entry {
	t.Helper()
	var e *audit.Entry
	until(t, fmt.Sprintf("%s of %s", kind, action), func(ctx context.Context) error {
		if err := l.refresh(ctx); err != nil {
			return err
		}
		if e = l.find(func(e *audit.Entry) bool { return e.Kind == kind && e.Action == action }); e == nil {
			return fmt.Errorf("none among %d entries", len(l.entries))
		}
		return nil
	})
	return e
}

// untilExhausted waits until nothing is left to be done, an action was skipped
// and a human was called.
func (s *stack) untilExhausted(t *testing.T, skipped string) view.IncidentView {
	t.Helper()
	var inc view.IncidentView
	until(t, "exhausted", func(ctx context.Context) (err error) {
		if inc, err = s.openIncident(ctx); err == nil && inc.State != remediation.Exhausted {
			err = fmt.Errorf("the incident is %s (%s: %s)", inc.State, inc.Reason, inc.Why)
		}
		return err
	})
	for _, step := range inc.Steps {
		if step.Action == skipped && step.State != remediation.StepSkipped {
			t.Errorf("%s is %s, not skipped", step.ID, step.State)
		}
	}
	l := &log{stack: s}
	paged := false
	for _, e := range kinds(t, l, audit.KindNotified) {
		paged = paged || e.Incident == inc.ID && text(&e, "reason") == string(remediation.Exhausted)
	}
	if !paged {
		t.Error("nobody was paged")
	}
	return inc
}
