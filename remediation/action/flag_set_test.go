package action

import (
	"slices"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

var _ remediation.FlagSetter = flagOff{}

func TestAFlagIsGivenAnyValueByWhoKeepsIt(t *testing.T) {
	compose, ld := &noFlags{}, &noFlags{}
	k := flagOff{flags: compose, launchDarkly: ld}
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

// sharing are noFlags that set shares too.
type sharing struct {
	noFlags
	shares []string
}

// FlagShare implements Shares.
func (f *sharing) FlagShare(_ alerts.Target, flag alerts.Flag, share string) (remediation.Action, error) {
	f.shares = append(f.shares, flag.Name+"="+share+", off "+flag.Off)
	return nil, nil
}

func TestAShareOfTheTrafficIsSetWhereLaunchDarklyKeepsTheFlag(t *testing.T) {
	ld := &sharing{}
	k, off := flagOff{flags: &noFlags{}, launchDarkly: ld}, kept().Flag("B").Off
	target, _, err := k.SetFlag(kept(), "B", "0.25")
	if err != nil || !strings.HasPrefix(target, "launchdarkly:") || len(ld.asked) != 0 || !slices.Equal(ld.shares, []string{"B=0.25, off " + off}) {
		t.Errorf("%s: asked for %v and %v: %v", target, ld.shares, ld.asked, err)
	}
	// Its off value is the flag off, for everybody.
	if _, _, err := k.SetFlag(kept(), "B", off); err != nil || len(ld.asked) != 1 || ld.asked[0].Off != off || len(ld.shares) != 1 {
		t.Errorf("its off value: %v, %v: %v", ld.asked, ld.shares, err)
	}
}

func TestAShareIsRefusedWhereWhoKeepsTheFlagHasNone(t *testing.T) {
	ld := &noFlags{}
	pb := kept()
	pb.Service = "shop"
	_, _, err := flagOff{flags: &noFlags{}, launchDarkly: ld}.SetFlag(pb, "B", "0.25")
	if err == nil || !strings.Contains(err.Error(), "--declare --service=shop --stage=NAME") || len(ld.asked) != 0 {
		t.Errorf("got %v, and LaunchDarkly was asked for %v", err, ld.asked)
	}
	if _, _, err := (flagOff{flags: &noFlags{}}).SetFlag(kept(), "B", "0.25"); err == nil || !strings.Contains(err.Error(), "is not configured") {
		t.Errorf("without LaunchDarkly: %v", err)
	}
}
