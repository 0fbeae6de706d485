package action

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
)

// kept is a playbook with one flag in the compose project and one that
// LaunchDarkly keeps.
func kept() *alerts.Playbook {
	pb := playbook()
	pb.Flags[1].LaunchDarkly = &alerts.LaunchDarklyFlag{Project: "social-intel", Environment: "production", Key: "b.enabled"}
	return pb
}

func TestAFlagIsSwitchedByWhoKeepsIt(t *testing.T) {
	compose, ld := &noFlags{}, &noFlags{}
	k := flagOff{compose, ld}
	for flag, target := range map[string]string{"A": "compose:/srv/social-intel/web:A", "B": "launchdarkly:social-intel/production/b.enabled"} {
		if _, err := k.Bind(kept(), &flagOffParams{Flag: flag}); err != nil {
			t.Fatal(err)
		}
		if got := k.Target(kept(), &flagOffParams{Flag: flag}); got != target {
			t.Errorf("target of %s is %q, want %q", flag, got, target)
		}
	}
	if len(compose.asked) != 1 || compose.asked[0].Name != "A" || len(ld.asked) != 1 || ld.asked[0].Name != "B" {
		t.Errorf("compose was asked for %v, LaunchDarkly for %v", compose.asked, ld.asked)
	}
}

func TestAFlagThatLaunchDarklyKeepsNeedsItsConfiguration(t *testing.T) {
	k := flagOff{&noFlags{}, nil}
	_, err := k.Bind(kept(), &flagOffParams{Flag: "B"})
	if err == nil || !strings.Contains(err.Error(), "LaunchDarkly keeps the flag B, and is not configured; try: launchdarkly: {token_file: launchdarkly.token}") {
		t.Errorf("got %v", err)
	}
	if _, err := k.Bind(kept(), &flagOffParams{Flag: "A"}); err != nil {
		t.Errorf("the other flag is held too: %v", err)
	}
}
