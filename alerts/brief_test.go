package alerts_test

import (
	"os"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
)

func withTemplate(t *testing.T, text string) string {
	t.Helper()
	src, err := os.ReadFile("playbook.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const at = "    owner: Customer Support Lead\n"
	if !strings.Contains(string(src), at) {
		t.Fatal("the default playbook has no owner of the support brief")
	}
	return strings.Replace(string(src), at, at+"    template: "+text+"\n", 1)
}

func TestASupportBriefsTemplateIsTriedWhenThePlaybookIsLoaded(t *testing.T) {
	if _, err := alerts.Parse("p.yaml", []byte(withTemplate(t, `"{{.Service}}{{range .Components}}{{.Name}}{{end}}"`)), kinds()); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`"{{.Service"`:                     "unclosed action",
		`"{{.Servic}}"`:                    "can't evaluate field Servic",
		`"{{(index .Components 0).Name}}"`: "index out of range",
		`"{{nofunction .Service}}"`:        `function "nofunction" not defined`,
		`" "`:                              "is empty",
		`'{{printf "%100000d" 1}}'`:        "longer than",
		`'{{define "x"}}{{template "x"}}{{end}}{{template "x"}}'`: "exceeded maximum template depth",
	} {
		_, err := alerts.Parse("p.yaml", []byte(withTemplate(t, text)), kinds())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "p.yaml:") || !strings.Contains(err.Error(), "support_brief.template") || !strings.Contains(err.Error(), "try: ") {
			t.Errorf("%s: got %v, want %q with its line and a try", text, err, want)
		}
	}
}

func TestTheBuiltInBriefSaysWhatIsKnownAndWhatIsNot(t *testing.T) {
	s := &alerts.SupportBrief{Owner: "Ann", Points: []string{"Be kind"}}
	got, err := s.Render(alerts.Brief{Service: "shop", Incident: "inc-1", Owner: s.Owner, Points: s.Points, Next: "Soon."})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Support brief for Ann: shop, inc-1\n", "The public page says nothing yet", "None is turned off.", "\nSoon.\n", "- Be kind\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
}

func TestPluralsAreRegular(t *testing.T) {
	for noun, want := range map[string]string{"stay": "4 stays", "key": "4 keys", "entry": "4 entries", "query": "4 queries", "step": "4 steps"} {
		if got := alerts.Counted(4, noun); got != want {
			t.Errorf("four of %q: %q", noun, got)
		}
	}
}
