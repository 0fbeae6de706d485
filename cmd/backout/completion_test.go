package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/locotoki/backout/cmd/backout/completion"
	"github.com/locotoki/backout/cmd/backout/manpage"
)

func completed(t *testing.T, env map[string]string, words ...string) []string {
	t.Helper()
	r := backout(t, env, append([]string{completion.Flag}, words...)...)
	if r.status != statusFine || r.stderr != "" {
		t.Errorf("%q: status %d, says %q", words, r.status, r.stderr)
	}
	return strings.Fields(r.stdout)
}

func TestCompletionKnowsCommandsFlagsAndFixedValues(t *testing.T) {
	nobody := map[string]string{"BACKOUT_URL": "http://127.0.0.1:1"}
	for line, want := range map[string]string{
		"inc":                             "incident",
		"incident cl":                     "claim close",
		"incident show --fo":              "--follow",
		"incident list --status ":         "all closed open",
		"incident list --status=c":        "closed",
		"incident list --status = c":      "closed",
		"preflight --ser":                 "--service",
		"serve --mode=":                   "act observe",
		"schema ":                         "api config output playbook",
		"completion fi":                   "fish",
		"audit list --kind=rel":           "released",
		"incident show inc":               "", // no server
		"incident show inc-1 ":            "", // its only argument is there
		"freeze --reason ":                "",
		"freeze --reason x --scope pr":    "promotions",
		"nonsense --x ":                   "",
		"incident show -- --fo":           "",
		"check --playbook.file pb.yaml -": "--",
	} {
		got := strings.Join(completed(t, nobody, strings.Split(line, " ")...), " ")
		if want == "--" {
			if !strings.Contains(got, "--coverage") {
				t.Errorf("%q offers %q", line, got)
			}
		} else if got != want {
			t.Errorf("%q offers %q, want %q", line, got, want)
		}
	}
}

// A server's names reach the shell only as single words.
func TestCompletionOffersNoNameThatAShellWouldRun(t *testing.T) {
	asked := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.Header.Get("Authorization") != "Bearer s3cret" {
			t.Errorf("asked with %q", r.Header.Get("Authorization"))
		}
		_, _ = w.Write([]byte(`{"rollouts":[{"service":"shop","stages":["alpha","be;ta"]},{"service":"$(id)"},{"service":"a b"},{"service":"--url=x"},{"service":"..\u001b[2J"}]}`))
	}))
	defer srv.Close()
	env := map[string]string{"BACKOUT_URL": srv.URL, "BACKOUT_TOKEN_FILE": tokenFile(t)}
	if got := completed(t, env, "freeze", "--service", ""); strings.Join(got, " ") != "shop" {
		t.Errorf("offers %q", got)
	}
	if got := completed(t, env, "rollout", "start", "--service=shop", "--stage="); strings.Join(got, " ") != "alpha" {
		t.Errorf("offers %q", got)
	}
	before := asked
	completed(t, env, "backtest", "--url="+srv.URL, "--stage=") // a Prometheus, which gets no token
	if asked != before || before == 0 {
		t.Errorf("asked %d times, then %d", before, asked)
	}
}

func TestThePlaybooksOnTheLineAreCompletedFrom(t *testing.T) {
	file, err := filepath.Abs("../../alerts/playbook.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := completed(t, nil, "backtest", "--playbook.file", file, "--stage="); len(got) == 0 || got[0] != "alpha" {
		t.Errorf("offers %q", got)
	}
}

// make tools fetches mandoc.
func TestTheManualPageIsGoodRoffAndHasEveryCommand(t *testing.T) {
	r := backout(t, map[string]string{"SOURCE_DATE_EPOCH": "1767366300"}, manpage.Flag)
	if r.status != statusFine || r.stderr != "" {
		t.Fatal(r.status, r.stderr)
	}
	page := filepath.Join(t.TempDir(), "backout.1")
	if err := os.WriteFile(page, []byte(r.stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mandoc", "-T", "lint", "-W", "warning", page).CombinedOutput(); err != nil {
		t.Errorf("%v; try: make tools\n%s", err, out)
	}
	out, err := exec.Command("mandoc", "-T", "ascii", page).Output()
	if err != nil {
		t.Fatalf("%v; try: make tools", err)
	}
	text := regexp.MustCompile(`.\x08`).ReplaceAllString(string(out), "")
	for _, want := range []string{
		"2026-01-02", "backout rollout promote", "--insecure-http", "--no-", "EXIT STATUS", "BACKOUT_TOKEN_FILE", "/etc/backout/playbook.yaml",
		"backout approve --reason=REASON [<flags>] <incident> <step>",
	} {
		if !said(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	c := newCommands(nil, nil, nil)
	for _, command := range c.app.Model().FlattenedCommands() {
		if !command.Hidden && !said(text, "backout "+command.FullCommand) {
			t.Errorf("the page lacks backout %s", command.FullCommand)
		}
	}
}
