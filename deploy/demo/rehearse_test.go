package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// standing is all that a rehearsal must leave as it is, by what it is.
func (s *stack) standing(t *testing.T) map[string]string {
	t.Helper()
	ctx := t.Context()
	out := map[string]string{}
	list, err := s.engine.containers(ctx, s.project)
	must(t, err)
	var ids []string
	for _, c := range list {
		ids = append(ids, c.ID+" "+c.State+" "+c.ImageID)
	}
	slices.Sort(ids)
	out["containers"] = strings.Join(ids, "\n")
	names, err := s.engine.tags(ctx, s.image)
	must(t, err)
	slices.Sort(names)
	for _, name := range names {
		id, err := s.engine.imageID(ctx, name)
		must(t, err)
		out["images"] += name + " " + id + "\n"
	}
	for _, file := range []string{".env", "docker-compose.yml"} {
		text, err := os.ReadFile(s.path("project", file))
		must(t, err)
		out[file] = string(text)
	}
	out["flag"], err = s.flag(ctx)
	must(t, err)
	out["version"], err = s.version(ctx)
	must(t, err)
	out["schema"] = s.dumpSchema(t)
	must(t, s.inDatabase(ctx, func(conn *pgx.Conn) error {
		var roles, history string
		err := conn.QueryRow(ctx, `SELECT (SELECT string_agg(rolname::text || rolcanlogin::text, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname = $1),
			(SELECT string_agg(version || type, ' ' ORDER BY installed_rank) FROM flyway_schema_history)`, s.role()).Scan(&roles, &history)
		out["roles"], out["history"] = roles, history
		return err
	}))
	left, err := os.ReadDir(s.path("snapshots"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	out["snapshots"] = fmt.Sprint(left)
	var answer struct{ Rollouts []remediation.Rollout }
	must(t, s.ask(ctx, "backout", "/api/v1/rollout", &answer))
	rollout, err := json.Marshal(answer.Rollouts)
	must(t, err)
	out["rollout"] = string(rollout)
	return out
}

// dumpSchema is the database's schema as pg_dump writes it, less the marks that are
// another in each dump.
func (s *stack) dumpSchema(t *testing.T) string {
	t.Helper()
	dsn, err := s.adminDSN()
	must(t, err)
	text, err := exec.CommandContext(t.Context(), "pg_dump", "--schema-only", "--dbname="+dsn).Output()
	must(t, err)
	var kept []string
	for _, line := range strings.Split(string(text), "\n") {
		if !strings.HasPrefix(line, `\restrict `) && !strings.HasPrefix(line, `\unrestrict `) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n")
}

// wantAsBefore fails the test unless everything stands as it did.
func (s *stack) wantAsBefore(t *testing.T, before map[string]string) {
	t.Helper()
	after := s.standing(t)
	for what, was := range before {
		if after[what] != was {
			t.Errorf("%s was\n%s\nand is\n%s", what, was, after[what])
		}
	}
	if n, err := (&proving{stack: s, t: t}).aside(t.Context()); err != nil || n > 0 {
		t.Errorf("%d containers that were started aside are left (%v)", n, err)
	}
}

// The whole ladder on the real targets: nothing of it stays, and a later incident
// says how long it took.
func TestARehearsalGoesThroughTheWholeLadderAndLeavesEverythingAsItWas(t *testing.T) {
	t.Parallel()
	s := runningStack(t, "rehearse", asUsual)
	ctx := t.Context()
	before := s.standing(t)
	if !strings.Contains(before["schema"], "trend_totals") {
		t.Fatalf("the schema has nothing to go back from:\n%s", before["schema"])
	}
	s.killedInARehearsal(t, before)

	said, err := s.command(ctx, "rehearse", "--plan=ladder", "--reason=before T-3")
	must(t, err)
	t.Logf("backout rehearse says:\n%s", said)
	if !strings.Contains(said, "Plan ladder: 6 passed, 0 failed, 0 unknown; 3 of 5 steps tried") {
		t.Errorf("it says:\n%s", said)
	}
	s.wantAsBefore(t, before)

	var v remediation.RehearsalView
	must(t, s.ask(ctx, "backout", "/api/v1/rehearse", &v))
	if len(v.Rehearsals) != 1 || v.Rehearsals[0].Status != remediation.Pass || v.Rehearsals[0].By != "demo" || len(v.Rehearsals[0].Incidents) != 1 {
		t.Fatalf("kept is %+v", v)
	}
	r := v.Rehearsals[0]
	s.wantDrillTrail(t, r)
	_, err = s.verify(ctx)
	must(t, err)
	covered, err := s.run(ctx, "check", "--coverage", "--storage.dsn=sqlite:"+s.path("backout.db"), "--playbook.file="+s.path("playbook.yaml"))
	must(t, err)
	if want := "rehearsed  " + remediation.Moment(r.Finished); !strings.Contains(covered, want) || strings.Contains(covered, "rehearsed  never") {
		t.Errorf("check --coverage does not say %q of every trigger:\n%s", want, covered)
	}

	breakNow(t, s, everythingFails)
	var inc view.IncidentView
	until(t, "an incident opens", func(ctx context.Context) error {
		open, err := s.openIncident(ctx)
		if err == nil {
			err = s.ask(ctx, "backout", "/api/v1/incidents/"+open.ID, &inc)
		}
		if err == nil && len(inc.Steps) != len(r.Steps) {
			err = fmt.Errorf("it has %d steps", len(inc.Steps))
		}
		return err
	})
	for i, step := range inc.Steps {
		want := ""
		if r.Steps[i].Tried {
			want = remediation.Took(r.Steps[i].Took)
		}
		if step.ID != r.Steps[i].ID || step.Expected != want || (want != "") != (step.Rehearsed != nil) {
			t.Errorf("%s is expected to take %q (rehearsed %v); %s took %q", step.ID, step.Expected, step.Rehearsed, r.Steps[i].ID, want)
		}
	}
	shown, err := s.command(ctx, "incident", "show", inc.ID)
	must(t, err)
	schema := r.Steps[len(r.Steps)-1]
	if want := "took " + remediation.Took(schema.Took) + " when rehearsed on " + r.Finished.UTC().Format("2 Jan 2006"); !strings.Contains(shown, want) {
		t.Errorf("backout incident show does not say %q:\n%s", want, shown)
	}
	// An incident has the targets to itself.
	if said, err := s.command(ctx, "rehearse"); err == nil || !strings.Contains(err.Error(), "incident "+inc.ID+" of social-intel is open") {
		t.Errorf("beside incident %s it says %q (%v)", inc.ID, said, err)
	}
}

// killedInARehearsal kills backout while a container is started aside: the next start
// takes it away, and nothing was rehearsed.
func (s *stack) killedInARehearsal(t *testing.T, before map[string]string) {
	t.Helper()
	p := &proving{stack: s, t: t}
	must(t, p.post(s.url("backout")+"/api/v1/rehearse", `{"plan":"ladder","reason":"to be killed"}`))
	must(t, await(t.Context(), generous, 10*time.Millisecond, func(ctx context.Context) error {
		n, err := p.aside(ctx)
		if err == nil && n == 0 {
			err = fmt.Errorf("nothing is started aside yet")
		}
		return err
	}))
	must(t, s.serve.kill())
	if n, err := p.aside(t.Context()); err != nil || n == 0 {
		t.Fatalf("%d containers are left by the kill (%v): it came too late to show anything", n, err)
	}
	must(t, s.startBackout(t.Context()))
	until(t, "what was started aside is taken away", func(ctx context.Context) error {
		n, err := p.aside(ctx)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d are left", n)
		}
		return err
	})
	until(t, "the rehearsal that was cut off counts as running no more", func(ctx context.Context) error {
		var v remediation.RehearsalView
		err := s.ask(ctx, "backout", "/api/v1/rehearse", &v)
		if err == nil && v.Running { // what it has found so far is shown until then
			return fmt.Errorf("%d steps are left", v.Left)
		}
		if err == nil && len(v.Rehearsals) > 0 {
			err = fatal(fmt.Errorf("it is kept: %+v", v))
		}
		return err
	})
	s.wantAsBefore(t, before)
}

// wantDrillTrail fails the test unless all that the audit log has of a rehearsal's
// drill is marked so: the alert, each step skipped, and what became of each.
func (s *stack) wantDrillTrail(t *testing.T, r remediation.Rehearsal) {
	t.Helper()
	var answer struct{ Entries []audit.Entry }
	must(t, s.ask(t.Context(), "backout", "/api/v1/audit?limit=1000&incident="+r.Incidents[0], &answer))
	count := map[audit.Kind]int{}
	for _, e := range answer.Entries {
		count[e.Kind]++
		switch e.Kind {
		case audit.KindOpened, audit.KindOutcome, audit.KindVerified:
			if e.Detail["drill"] != true {
				t.Errorf("entry %d (%s) is not marked drill: %v", e.Seq, e.Kind, e.Detail)
			}
		case audit.KindIntent:
			t.Errorf("entry %d is an intent", e.Seq)
		}
		if e.Kind == audit.KindVerified && (e.Detail["what"] != "rehearsal" || e.Detail["result"] != "pass") {
			t.Errorf("entry %d is %v", e.Seq, e.Detail)
		}
	}
	if count[audit.KindOpened] != 1 || count[audit.KindOutcome] != len(r.Steps) || count[audit.KindVerified] != len(r.Steps)+1 || count[audit.KindClosed] != 1 {
		t.Errorf("the drill's trail has %v", count)
	}
	inc := view.IncidentView{}
	must(t, s.ask(t.Context(), "backout", "/api/v1/incidents/"+r.Incidents[0], &inc))
	if !inc.Drill || inc.State != remediation.Closed {
		t.Errorf("the drill is %+v", inc)
	}
}
