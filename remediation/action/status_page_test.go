package action

import (
	"reflect"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// shown is a playbook whose status page has two components.
func shown() *alerts.Playbook {
	pb := playbook()
	pb.Communications = &alerts.Communications{StatusPage: &alerts.StatusPage{Components: []alerts.Component{{Name: "API"}, {Name: "Charts"}}}}
	return pb
}

func TestAStatusPageTellsOfItsOwnComponentsOrOfAllOfThePlaybooks(t *testing.T) {
	for name, c := range map[string]struct {
		pb     *alerts.Playbook
		params statusPageParams
		want   remediation.Announcement
	}{
		"its own": {shown(), statusPageParams{Components: []string{"Charts"}, Status: "partial_outage", Message: " We are on it.\n"},
			remediation.Announcement{Components: []string{"Charts"}, Status: remediation.PartialOutage, Words: "We are on it."}},
		"all of the playbook's": {shown(), statusPageParams{}, remediation.Announcement{Components: []string{"API", "Charts"}}},
		"none":                  {playbook(), statusPageParams{}, remediation.Announcement{}},
	} {
		if got := (statusPage{}).Announce(c.pb, &c.params); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestAComponentThatThePageDoesNotShowIsRefused(t *testing.T) {
	for _, c := range []struct {
		components []string
		problem    string // "" where there is none
	}{
		{[]string{"API"}, ""},
		{nil, ""},
		{[]string{"Charts", "Chart"}, `no component "Chart"`},
		{[]string{"API", "API"}, `"API" is listed there twice`},
	} {
		got := (statusPage{}).CheckParams(shown(), &statusPageParams{Components: c.components})
		if c.problem == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || got[0].Key != "components" || !strings.Contains(got[0].Problem, c.problem) || c.problem == "" || got[0].Try == "" {
			t.Errorf("%q: %+v", c.components, got)
		}
	}
	long := (statusPage{}).CheckParams(shown(), &statusPageParams{Message: strings.Repeat("ö", maxMessage+1)})
	if len(long) != 1 || long[0].Key != "message" {
		t.Errorf("a message that is too long: %+v", long)
	}
	if fits := (statusPage{}).CheckParams(shown(), &statusPageParams{Message: strings.Repeat("ö", maxMessage)}); len(fits) > 0 {
		t.Errorf("a long message: %+v", fits)
	}
}

func TestWhatTellsHasNoTargetToActOn(t *testing.T) {
	if a, err := (statusPage{}).Bind(playbook(), &statusPageParams{}); err == nil || a != nil {
		t.Errorf("bound to %v: %v", a, err)
	}
}

func TestEveryStatusThatAStepCanNameIsOne(t *testing.T) {
	for _, s := range remediation.ComponentStatuses() {
		if got := (statusPage{}).CheckParams(playbook(), &statusPageParams{Status: string(s)}); len(got) > 0 {
			t.Errorf("%s: %+v", s, got)
		}
	}
}
