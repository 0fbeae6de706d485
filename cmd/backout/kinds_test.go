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
)

// A stage's share of the traffic is set where LaunchDarkly keeps the flag.
var _ action.Shares = (*launchdarkly.Client)(nil)

func TestNoKindTellsASecretOfTheConfiguration(t *testing.T) {
	const secret = "api-hunter2"
	cfg := config.Default()
	cfg.LaunchDarkly = &config.LaunchDarkly{URL: "http://127.0.0.1:1", Token: config.NewSecret(secret)}
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
	for i := range kept.Flags {
		kept.Flags[i].LaunchDarkly = &alerts.LaunchDarklyFlag{Project: "p", Environment: "e", Key: fmt.Sprint("k", i)}
	}
	bound := 0
	for _, pb := range []*alerts.Playbook{{}, pb, &kept} {
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
				if strings.HasPrefix(target, "launchdarkly:p/e/k") && err == nil {
					bound++
				}
				if said := fmt.Sprint(err, target, kind.CheckParams(pb, p)); strings.Contains(said, secret) {
					t.Errorf("%s tells a secret: %s", kind.Name(), said)
				}
			}
		}
	}
	if bound == 0 {
		t.Error("no flag was bound that LaunchDarkly keeps")
	}
}
