package gate

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
)

// composeService is the folder and the service of a ComposeTarget.
func composeService(target string) (dir, service string, ok bool) {
	path, ok := strings.CutPrefix(target, remediation.ComposePrefix)
	dir, service = filepath.Split(path) // neither a service's name nor a part has a slash
	if end := strings.IndexAny(service, "@:"); end >= 0 {
		service = service[:end]
	}
	return filepath.Clean(dir), service, ok
}

// lockOf is what a change of a target has for itself: of a part of a compose service
// the whole service, in the folder that it really is in; of a part of a workload in
// Kubernetes the whole workload; of a part of a service in Swarm the whole service; of
// anything else the target.
func (e *Gates) lockOf(target string) string {
	for _, prefix := range []string{remediation.KubernetesPrefix, remediation.SwarmPrefix} {
		if end := strings.LastIndexByte(target, ':'); strings.HasPrefix(target, prefix) && end >= len(prefix) {
			return prefix + workload(target[len(prefix):end])
		}
	}
	dir, service, ok := composeService(target)
	if !ok {
		return target
	}
	if real, ok := e.folders.Load(dir); ok {
		dir = real.(string)
	}
	return remediation.ComposePrefix + filepath.Join(dir, service)
}

// sameTarget reports whether two names are of one part of one target: a folder and a cluster
// may have several names.
func (e *Gates) sameTarget(a, b string) bool {
	part := func(target string) string { return target[strings.LastIndexByte(target, ':')+1:] }
	return e.lockOf(a) == e.lockOf(b) && part(a) == part(b)
}

// workload is a target's name without its cluster: one context may have two names, and the
// default one has none.
func workload(name string) string {
	parts := strings.Split(name, "/")
	return strings.Join(parts[max(len(parts)-3, 0):], "/")
}

// TargetHeld says which open incident of another service needs a target as it is, which one
// of its steps made or found so; "" if none does.
func (e *Gates) TargetHeld(tx remediation.Tx, target, service string) (string, error) {
	open, err := tx.Incidents(remediation.IncidentFilter{Open: true})
	if err != nil {
		return "", err
	}
	for _, inc := range open {
		if inc.Service == service || inc.Drill {
			continue
		}
		for _, s := range inc.Steps {
			if e.sameTarget(s.Target, target) && (s.State == remediation.StepDone || s.State == remediation.StepNoChange) {
				return fmt.Sprintf("incident %s of %s is open, and needs %s as it is", inc.ID, inc.Service, target), nil
			}
		}
	}
	return "", nil
}

// MeetTarget remembers which folder a target really is in: lockOf runs in transactions,
// which must not wait for a slow disk.
func (e *Gates) MeetTarget(target string) {
	dir, _, ok := composeService(target)
	if !ok {
		return
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		e.folders.Store(dir, real)
	}
}

// PromotionUntil is how long an incident of a service must wait for a promotion
// that has its intent; zero where there is none.
func (e *Gates) PromotionUntil(ctx context.Context, service string) (until time.Time, err error) {
	err = e.Store.View(ctx, func(tx remediation.Tx) error {
		r, err := remediation.RolloutOf(tx, service)
		if err == nil && r.Promotion != nil {
			until = r.Promotion.Until
		}
		return err
	})
	return until, err
}
