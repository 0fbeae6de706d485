package main

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation/action"
	"github.com/locotoki/backout/remediation/launchdarkly"
	"github.com/locotoki/backout/remediation/unleash"
)

// A stage's share of the traffic is set where the flag is kept.
var (
	_ action.Shares = (*launchdarkly.Client)(nil)
	_ action.Shares = (*unleash.Client)(nil)
)

func TestNoKindTellsASecretOfTheConfiguration(t *testing.T) {
	const secret = "api-hunter2"
	cfg := config.Default()
	cfg.LaunchDarkly = &config.LaunchDarkly{URL: "http://127.0.0.1:1", Token: config.NewSecret(secret)}
	cfg.Unleash = &config.Unleash{URL: "http://127.0.0.1:1", Token: config.NewSecret(secret)}
	k, err := actionKinds(cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	pb, err := alerts.Default(playbookKinds(k.list))
	if err != nil {
		t.Fatal(err)
	}
	kept := *pb
	kept.Flags = slices.Clone(pb.Flags)
	free := kept
	free.Flags = slices.Clone(pb.Flags)
	for i := range kept.Flags {
		free.Flags[i].Unleash = &alerts.UnleashFlag{Project: "p", Environment: "e", Name: fmt.Sprint("k", i)}
		kept.Flags[i].LaunchDarkly = &alerts.LaunchDarklyFlag{Project: "p", Environment: "e", Key: fmt.Sprint("k", i)}
	}
	bound := map[string]int{}
	for _, pb := range []*alerts.Playbook{{}, pb, &kept, &free} {
		for _, kind := range k.list {
			params := []any{kind.NewParams()}
			for _, plan := range pb.Plans {
				for _, s := range plan.Steps {
					if s.Action == kind.Name() {
						params = append(params, s.Params)
					}
				}
			}
			for _, p := range params {
				_, err := kind.Bind(pb, p)
				target := kind.Target(pb, p)
				if keeper, at, _ := strings.Cut(target, ":"); strings.HasPrefix(at, "p/e/k") && err == nil {
					bound[keeper]++
				}
				if said := fmt.Sprint(err, target, kind.CheckParams(pb, p)); strings.Contains(said, secret) {
					t.Errorf("%s tells a secret: %s", kind.Name(), said)
				}
			}
		}
	}
	if bound["launchdarkly"] == 0 || bound["unleash"] == 0 {
		t.Errorf("bound %v, want flags that LaunchDarkly and Unleash keep", bound)
	}
}
