package action

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
)

var _ remediation.FlagSetter = flagOff{}

func TestAFlagIsGivenAnyValueByWhoKeepsIt(t *testing.T) {
	compose, ld := &noFlags{}, &noFlags{}
	k := flagOff{compose, ld}
	pb := kept()
	off := pb.Flag("A").Off
	target, _, err := k.SetFlag(pb, "A", "0.25")
	if err != nil || target != "compose:/srv/social-intel/web:A" {
		t.Errorf("target %q: %v", target, err)
	}
	if len(compose.asked) != 1 || compose.asked[0].Name != "A" || compose.asked[0].Off != "0.25" {
		t.Errorf("compose was asked for %v", compose.asked)
	}
	if pb.Flag("A").Off != off {
		t.Error("the playbook's own off value was changed")
	}
	if _, _, err := k.SetFlag(pb, "C", "0.25"); err == nil {
		t.Error("a flag that the playbook does not have was set")
	}
}

func TestAShareOfTheTrafficIsNotSetWhereLaunchDarklyKeepsTheFlag(t *testing.T) {
	ld := &noFlags{}
	_, _, err := flagOff{&noFlags{}, ld}.SetFlag(kept(), "B", "0.25")
	if err == nil || !strings.Contains(err.Error(), "--declare --stage=NAME") || len(ld.asked) != 0 {
		t.Errorf("got %v, and LaunchDarkly was asked for %v", err, ld.asked)
	}
	if _, _, err := (flagOff{&noFlags{}, ld}).SetFlag(kept(), "B", kept().Flag("B").Off); err != nil || len(ld.asked) != 1 {
		t.Errorf("its off value cannot be set: %v", err)
	}
}
