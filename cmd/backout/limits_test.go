package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestALimitThatHoldsNothingIsAWarning(t *testing.T) {
	dir := t.TempDir()
	for service, radius := range map[string]string{"shop": "4/10m", "blog": "6/10m"} {
		secretFile(t, filepath.Join(dir, service+".yaml"), strings.ReplaceAll(strings.ReplaceAll(replicaPlaybook, "shop", service), "6/10m", radius))
	}
	for limits, want := range map[string][]string{
		"{services: 5/10m}":                                     {"the limit of each realm, services: 5/10m, is not reached: blast_radius 4/10m of shop holds its steps first"},
		"{realm: default, services: 13/30m}":                    {"the limit of realm default, services: 13/30m, is not reached: blast_radius 4/10m of shop"},
		"{services: 4/10m}":                                     nil,
		"{services: 8/20m}":                                     nil, // which 4/10m allows
		"{services: 4/10m}, {realm: host:web1, services: 1/1h}": {"the limit of realm host:web1 holds nothing: no playbook is in that realm"},
		"{services: 9/10m}, {realm: default, services: 1/10m}":  nil, // every playbook is in default
	} {
		conf := filepath.Join(dir, "backout.yml")
		secretFile(t, conf, "limits: ["+limits+"]\n")
		r := backout(t, nil, "check", "--config.file="+conf, "--playbook.file="+filepath.Join(dir, "shop.yaml"), "--playbook.file="+filepath.Join(dir, "blog.yaml"))
		if r.status != 0 {
			t.Fatalf("check: %+v", r)
		}
		said := strings.Count(r.stdout+r.stderr, "the limit of ")
		if said != len(want) || slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(r.stdout+r.stderr, w) }) {
			t.Errorf("%s: want %q in:\n%s%s", limits, want, r.stdout, r.stderr)
		}
	}
}
