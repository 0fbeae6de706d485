package action

import (
	"slices"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
)

// kept is a playbook with one flag in the compose project, one that LaunchDarkly keeps
// and one that Unleash keeps.
func kept() *alerts.Playbook {
	pb := playbook()
	pb.Flags[1].LaunchDarkly = &alerts.LaunchDarklyFlag{Project: "social-intel", Environment: "production", Key: "b.enabled"}
	pb.Flags = append(slices.Clone(pb.Flags), alerts.Flag{Name: "U", Off: "false", Unleash: &alerts.UnleashFlag{Project: "default", Environment: "production", Name: "u.enabled"}})
	return pb
}

func TestAFlagIsSwitchedByWhoKeepsIt(t *testing.T) {
	compose, ld, unleash := &noFlags{}, &noFlags{}, &noFlags{}
	k := flagOff{compose, ld, unleash}
	for flag, target := range map[string]string{
		"A": "compose:/srv/social-intel/web:A", "B": "launchdarkly:social-intel/production/b.enabled", "U": "unleash:default/production/u.enabled",
	} {
		if _, err := k.Bind(kept(), &flagOffParams{Flag: flag}); err != nil {
			t.Fatal(err)
		}
		if got := k.Target(kept(), &flagOffParams{Flag: flag}); got != target {
			t.Errorf("target of %s is %q, want %q", flag, got, target)
		}
	}
	for flag, keeper := range map[string]*noFlags{"A": compose, "B": ld, "U": unleash} {
		if len(keeper.asked) != 1 || keeper.asked[0].Name != flag {
			t.Errorf("the keeper of %s was asked for %v", flag, keeper.asked)
		}
	}
}

func TestAFlagThatAServiceKeepsNeedsItsConfiguration(t *testing.T) {
	k := flagOff{flags: &noFlags{}}
	for flag, want := range map[string]string{
		"B": "LaunchDarkly keeps the flag B, and is not configured; try: launchdarkly: {token_file: launchdarkly.token}",
		"U": `Unleash keeps the flag U, and is not configured; try: unleash: {url: "https://unleash.example.com", token_file: unleash.token}`,
	} {
		_, err := k.Bind(kept(), &flagOffParams{Flag: flag})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v", err)
		}
	}
	if _, err := k.Bind(kept(), &flagOffParams{Flag: "A"}); err != nil {
		t.Errorf("the other flag is held too: %v", err)
	}
}
