package main

import (
	"fmt"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
)

// limitWarnings are the limits of realms that hold nothing: a playbook's own blast_radius
// comes first, or no playbook is in the realm.
func limitWarnings(file string, cfg *config.Config, playbooks []*alerts.Playbook) (all []alerts.Problem) {
	limited := map[string]bool{}
	for _, l := range cfg.Limits {
		limited[l.Realm] = true
	}
	for _, l := range cfg.Limits {
		found, first := false, (*alerts.Playbook)(nil)
		for _, pb := range playbooks {
			realm := remediation.LimitRealm(pb.Target)
			if realm != l.Realm && (l.Realm != "" || limited[realm]) {
				continue
			}
			found = true
			if most := stepsWithin(pb.Limits.BlastRadius, l.Services); most < l.Services.Count && (first == nil || most < stepsWithin(first.Limits.BlastRadius, l.Services)) {
				first = pb
			}
		}
		name := "of each realm"
		if l.Realm != "" {
			name = "of realm " + l.Realm
		}
		switch {
		case first != nil:
			all = append(all, alerts.Problem{
				File: file, Line: 1, Message: fmt.Sprintf("the limit %s, services: %s, is not reached: blast_radius %s of %s holds its steps first", name, l.Services, first.Limits.BlastRadius, first.Service),
				Try: fmt.Sprintf("limits: {blast_radius: %s} or more in its playbook", l.Services),
			})
		case !found && l.Realm != "":
			all = append(all, alerts.Problem{File: file, Line: 1, Message: fmt.Sprintf("the limit %s holds nothing: no playbook is in that realm", name), Try: "the realm of a playbook's target: host:NAME, cluster:CONTEXT, cluster or default"})
		}
	}
	return all
}

// stepsWithin is how many steps a rate allows within the window of another.
func stepsWithin(r, within alerts.Rate) int {
	return r.Count * int((within.Window+r.Window-1)/r.Window)
}
