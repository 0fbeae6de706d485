package action

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

type noFlags struct{ asked []alerts.Flag }

func (n *noFlags) FlagOff(_ alerts.Target, f alerts.Flag) (remediation.Action, error) {
	n.asked = append(n.asked, f)
	return nil, nil
}

type noImages struct{ asked []string }

func (n *noImages) Smoke(context.Context, alerts.SmokeCheck) error { return nil }

func (n *noImages) ImageRetag(t alerts.Target, image, previous string) (remediation.Action, error) {
	n.asked = append(n.asked, t.Compose.Service, image, previous)
	return nil, nil
}

func (*noImages) Runs(context.Context, alerts.Target, string, string) error { return nil }

func playbook() *alerts.Playbook {
	return &alerts.Playbook{
		Service: "social-intel",
		Release: alerts.Release{Version: "v2.0.0", Previous: "v1.0.0"},
		Target:  alerts.Target{Compose: alerts.ComposeTarget{ProjectDir: "/srv/social-intel/", Service: "web"}},
		Flags:   []alerts.Flag{{Name: "A", Off: "0"}, {Name: "B", Off: "false"}},
	}
}

func kindNamed(t *testing.T, flags Flags, name string) remediation.ActionKind {
	t.Helper()
	for _, k := range Kinds(Tools{Flags: flags}) {
		if k.Name() == name {
			return k
		}
	}
	t.Fatalf("no kind %s", name)
	return nil
}

func TestEveryKindHasItsOwnNameAndTarget(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds(Tools{Flags: &noFlags{}}) {
		p := k.NewParams()
		if f, ok := p.(*flagOffParams); ok {
			f.Flag = "A"
		}
		target := k.Target(playbook(), p)
		if target == "" || strings.Contains(target, "*") || seen[target] || seen[k.Name()] {
			t.Errorf("%s: target %q", k.Name(), target)
		}
		seen[target], seen[k.Name()] = true, true
		if problems := k.CheckParams(playbook(), p); len(problems) > 0 {
			t.Errorf("%s: the default playbook's parameters are refused: %v", k.Name(), problems)
		}
	}
}

func TestRisksAreTheDesigns(t *testing.T) {
	for name, want := range map[string]alerts.Risk{
		"flag_off": alerts.Reversible, "status_page": alerts.Reversible, "image_retag": alerts.Disruptive, "schema_rollback": alerts.Lossy,
	} {
		if got := kindNamed(t, &noFlags{}, name).Risk(); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestOnlyTheStatusPageCommunicates(t *testing.T) {
	for _, k := range Kinds(Tools{Flags: &noFlags{}}) {
		if _, ok := k.(remediation.Communicator); ok != (k.Name() == "status_page") {
			t.Errorf("%s: communicator is %v", k.Name(), ok)
		}
	}
}

func TestFlagOffBindsTheFlagOfThePlaybook(t *testing.T) {
	flags := &noFlags{}
	k := kindNamed(t, flags, "flag_off")
	if _, err := k.Bind(playbook(), &flagOffParams{Flag: "B"}); err != nil {
		t.Fatal(err)
	}
	if len(flags.asked) != 1 || flags.asked[0].Name != "B" || flags.asked[0].Off != "false" {
		t.Errorf("asked for %+v", flags.asked)
	}
	if got := k.Target(playbook(), &flagOffParams{Flag: "B"}); got != "compose:/srv/social-intel/web:B" {
		t.Errorf("target %q", got)
	}
	named := playbook()
	named.Target.Compose.Project = "prod"
	if got := k.Target(named, &flagOffParams{Flag: "B"}); got != "compose:/srv/social-intel/web@prod:B" {
		t.Errorf("target of a named project %q", got)
	}
	if _, err := k.Bind(playbook(), &flagOffParams{Flag: "NONE"}); err == nil {
		t.Error("a flag that is not in the playbook was bound")
	}
}

func TestImageRetagBindsTheReleasesPreviousVersionUnlessItNamesOne(t *testing.T) {
	images := &noImages{}
	k := imageRetag{images}
	for _, p := range []*imageRetagParams{{}, {Image: "other", Previous: "v0.9"}} {
		if _, err := k.Bind(playbook(), p); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"web", "", "v1.0.0", "web", "other", "v0.9"}; !slices.Equal(images.asked, want) {
		t.Errorf("asked for %q, want %q", images.asked, want)
	}
}

func TestKindsThatAreNotBuiltSaySo(t *testing.T) {
	for _, name := range []string{"schema_rollback"} {
		k := kindNamed(t, &noFlags{}, name)
		if _, err := k.Bind(playbook(), k.NewParams()); err == nil || !strings.Contains(err.Error(), "not part of this build") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParametersAreChecked(t *testing.T) {
	for _, c := range []struct {
		kind   string
		params any
		keys   []string
	}{
		{"flag_off", &flagOffParams{}, []string{"flag"}},
		{"flag_off", &flagOffParams{Flag: "C"}, []string{"flag"}},
		{"image_retag", &imageRetagParams{Image: "social-intel", Previous: "v1.0.0"}, nil},
		{"image_retag", &imageRetagParams{Image: "registry.example.com:5000/a/b", Previous: "v1"}, nil},
		{"image_retag", &imageRetagParams{Image: "a:latest", Previous: "b:c"}, []string{"image", "previous"}},
		{"image_retag", &imageRetagParams{Variable: "TAG"}, nil},
		{"image_retag", &imageRetagParams{Variable: "SHOP-TAG"}, []string{"variable"}},
		{"image_retag", &imageRetagParams{Variable: "TAG", Image: "social-intel"}, []string{"image"}},
		{"schema_rollback", &schemaRollbackParams{Command: []string{"./rollback_to_v1.sh"}, Dir: "/srv/db"}, nil},
		{"schema_rollback", &schemaRollbackParams{Flyway: &flywayParams{Dir: "/m", Version: "1.0.0", DSNFile: "/d"}}, nil},
		{"schema_rollback", &schemaRollbackParams{
			DSNFile: "/d", ApplicationRoles: []string{"social_intel"}, RunsWith: []string{"v1.0.0"}, Tables: []string{"public.posts"},
			Flyway: &flywayParams{Dir: "/m", Version: "1.0.0"},
		}, nil},
		{"schema_rollback", &schemaRollbackParams{
			DSNFile: "d", ApplicationRoles: []string{"a", " ", "a"}, RunsWith: []string{"a:b"}, Tables: []string{""}, Wanted: "SELECT true",
		}, []string{"wanted", "dsn_file", "application_roles", "application_roles", "runs_with", "tables"}},
		{"schema_rollback", &schemaRollbackParams{DSNFile: "/d", Flyway: &flywayParams{Dir: "/m", Version: "1.0.0", DSNFile: "/d"}}, []string{"flyway.dsn_file"}},
		{"schema_rollback", &schemaRollbackParams{Flyway: &flywayParams{Dir: "/m", Version: "1.0.0"}}, []string{"flyway.dsn_file"}},
		{"schema_rollback", &schemaRollbackParams{Command: []string{"rollback"}}, []string{"command"}},
		{"schema_rollback", &schemaRollbackParams{Dir: "x"}, []string{"dir", "dir"}},
		{"schema_rollback", &schemaRollbackParams{Command: []string{"/x"}, Flyway: &flywayParams{}}, []string{"command", "flyway.dir", "flyway.version", "flyway.dsn_file"}},
		{"status_page", &statusPageParams{Status: "partial_outage", Components: []string{"API"}}, nil},
		{"status_page", &statusPageParams{Status: "bad", Components: []string{" "}}, []string{"status", "components"}},
	} {
		var keys []string
		for _, p := range kindNamed(t, &noFlags{}, c.kind).CheckParams(playbook(), c.params) {
			keys = append(keys, p.Key)
			if p.Problem == "" || p.Try == "" {
				t.Errorf("%s %+v: %+v says too little", c.kind, c.params, p)
			}
		}
		if !slices.Equal(keys, c.keys) {
			t.Errorf("%s %+v: problems at %v, want %v", c.kind, c.params, keys, c.keys)
		}
	}
}
