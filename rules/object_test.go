package rules_test

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules"
)

type loadedGroup struct {
	Name     string
	Interval string
	Rules    []struct {
		Record, Alert, Expr, For string
		Labels, Annotations      map[string]string
	}
}

// deployed returns the files of the default playbook by name.
func deployed(t *testing.T, s rules.Settings, edit func(*alerts.Playbook)) map[string]rules.File {
	t.Helper()
	pb, err := alerts.Default(kinds)
	if err != nil {
		t.Fatal(err)
	}
	edit(pb)
	files, err := s.Generate(pb)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]rules.File{}
	for _, f := range files {
		byName[f.Name] = f
	}
	return byName
}

func TestAPrometheusRuleHasTheFilesRulesAndEachAlertItsNamespace(t *testing.T) {
	files := deployed(t, rules.Settings{Objects: &rules.Objects{Namespace: "shop", Labels: map[string]string{"release": "kps"}}}, func(*alerts.Playbook) {})
	var object struct {
		Metadata struct {
			Name, Namespace string
			Labels          map[string]string
		}
		Spec struct{ Groups []loadedGroup }
	}
	if err := yaml.Unmarshal(files["rules/social-intel.prometheusrule.yml"].Content, &object); err != nil {
		t.Fatal(err)
	}
	if m := object.Metadata; m.Name != "backout-social-intel" || m.Namespace != "shop" || !maps.Equal(m.Labels, map[string]string{"release": "kps"}) {
		t.Errorf("metadata %+v", m)
	}
	for _, g := range object.Spec.Groups {
		for _, r := range g.Rules {
			if want := map[bool]string{true: "shop"}[r.Alert != ""]; r.Labels[rules.NamespaceLabel] != want {
				t.Errorf("%s%s has the namespace %q", r.Record, r.Alert, r.Labels[rules.NamespaceLabel])
			}
			delete(r.Labels, rules.NamespaceLabel)
		}
	}
	var plain struct{ Groups []loadedGroup }
	if err := yaml.Unmarshal([]byte(generate(t, nil)["rules/social-intel.rules.yml"]), &plain); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(object.Spec.Groups, plain.Groups) {
		t.Error("the rules differ from those of the file")
	}
	for name := range files {
		if strings.HasSuffix(name, rules.TestSuffix) || strings.HasSuffix(name, ".rules.yml") || name == "deploy/alertmanager.yml" {
			t.Errorf("%s is there too", name)
		}
	}
}

func TestAnAlertmanagerConfigPagesAlwaysWhereItsBusinessHoursNeedATimeZone(t *testing.T) {
	for zone, muted := range map[string]bool{"UTC": true, "Europe/Berlin": false} {
		f := deployed(t, rules.Settings{Objects: &rules.Objects{Namespace: "shop"}}, func(pb *alerts.Playbook) {
			pb.Communications.BusinessHours.TimeZone = zone
		})["rules/social-intel.alertmanagerconfig.yml"]
		text := string(f.Content)
		if strings.Contains(text, "muteTimeIntervals") != muted || strings.Contains(text, "pager-low-urgency") != muted || !strings.Contains(text, "receiver: pager\n") {
			t.Errorf("%s: %s", zone, text)
		}
		if (len(f.Warnings) == 0) != muted {
			t.Errorf("%s: warnings %q", zone, f.Warnings)
		}
	}
}
