package engine_test

import (
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

// SwitchesOff implements remediation.FlagSwitch, as the real kind does.
func (k *flagKind) SwitchesOff(any) string { return "FEATURE_A" }

func briefed(s string) string {
	s = strings.Replace(s, "fallback: none}", "fallback: Basic metrics only, description: Analytics of all shops}", 1)
	return strings.Replace(s, "communications: {", "communications: {support_brief: {owner: Ann, points: [Be kind]}, ", 1)
}

func (w *harness) brief(id string) string {
	w.t.Helper()
	b, err := w.engine.Brief(w.ctx, id)
	w.must(err)
	return b.Text
}

func TestTheBriefSaysWhatCustomersSeeAndWhatTheyGetInstead(t *testing.T) {
	w, _, team := withMail(t, briefed)
	id := w.open()
	if got := w.brief(id); !strings.Contains(got, "At about 22 November 2026, 03:05 UTC, or as soon as") {
		t.Errorf("the brief does not say when the next update comes:\n%s", got)
	}
	w.pass(29 * time.Minute)
	got, told := w.brief(id), w.public(id)
	for _, want := range []string{
		"Support brief for Ann: shop, " + id, told.Name + ", since 22 November 2026, 03:00 UTC.\n- Analytics: partial outage\n",
		"- Analytics of all shops: Basic metrics only\n", told.Updates[len(told.Updates)-1].Words + " (identified)", "\nAs soon as something changes.\n",
		"https://status.example.com\n", "- Be kind\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	for _, inside := range []string{"error_rate", "fp1", "fake:", "image_retag", "FEATURE_A"} {
		if strings.Contains(got, inside) {
			t.Errorf("the brief tells of %s:\n%s", inside, got)
		}
	}
	n := 0
	for _, m := range team.got {
		for _, l := range m.Told {
			if strings.Contains(l.Why, "Support brief is ready: backout incident brief "+id) {
				n++
			}
		}
	}
	if n != 1 {
		t.Errorf("the team was told %d times that the brief is ready, want once, with the first public update", n)
	}
	w.calm("error_rate")
	w.pass(time.Hour)
	_, err := w.engine.Brief(w.ctx, id)
	refused(t, err, remediation.Conflict)
	_, err = w.engine.Brief(w.ctx, "inc-99")
	refused(t, err, remediation.Missing)
}

func TestABriefSaysThatThePlaybookHasNoFallback(t *testing.T) {
	w := newHarness(t, replace("fallback: none", `fallback: ""`))
	w.declare("alpha")
	w.breach("error_rate")
	id := w.fire("error_rate", "fp1")
	if got := w.brief(id); !strings.Contains(got, "- FEATURE_A: the playbook does not say what customers get instead\n") {
		t.Errorf("the brief is\n%s", got)
	}
}

func TestAPlaybooksOwnTemplateWritesTheBriefAndHostileWordsArePlain(t *testing.T) {
	w, _, _ := withMail(t, briefed, replace("support_brief: {", `support_brief: {template: "{{.Title}}|{{range .Components}}{{.Name}}{{end}}|{{.Owner}}", `))
	w.announcement = remediation.Announcement{Components: []string{"<b>A\u202e\x1b[2J\nB" + strings.Repeat("x", 10_000)}, Status: remediation.MajorOutage}
	got := w.brief(w.open())
	if !strings.HasPrefix(got, "Problems with <b>A[U+202E][U+001B][2J B") || strings.ContainsAny(got, "\u202e\x1b") || len(got) > 14_000 {
		t.Errorf("the brief says %.300q (%d bytes)", got, len(got))
	}
}

func TestABriefBeforeThePublicWasToldSaysSo(t *testing.T) {
	w := newHarness(t)
	w.mode = remediation.Observe
	w.start()
	got := w.brief(w.open())
	if !strings.Contains(got, "The public page says nothing yet") || !strings.Contains(got, "None is turned off.") {
		t.Errorf("the brief says\n%s", got)
	}
}
