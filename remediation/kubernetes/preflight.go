package kubernetes

import (
	"context"
	"fmt"
	"net/http"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
	"github.com/locotoki/backout/remediation/replicas"
)

var (
	_ remediation.SelfChecking = (*flagChange)(nil)
	_ remediation.SelfChecking = (*imageChange)(nil)
	_ remediation.Rehearser    = (*flagChange)(nil)
	_ remediation.Rehearser    = (*imageChange)(nil)
	_ remediation.Restorer     = (*change)(nil)
	_ remediation.Watcher      = (*change)(nil)
)

// proofOf is the operation as which a check looks; no incident has it.
const proofOf = "preflight"

// Checks implements remediation.SelfChecking.
func (a *flagChange) Checks() []remediation.PreflightCheck {
	return []remediation.PreflightCheck{
		a.Known(),
		{ID: "flag/" + a.flag.Name + "/lasts", Name: "nothing sets " + a.flag.Name + " back", Run: a.checkLasts},
		{ID: "flag/" + a.flag.Name + "/off", Name: a.flag.Name + "=" + a.flag.Off + " is accepted by the API server", Run: a.checkAccepted},
	}
}

// Rehearse implements remediation.Rehearser: the change is sent as a dry run.
func (a *flagChange) Rehearse(ctx context.Context) remediation.Result {
	return remediation.Trial(ctx, a.checkLasts, a.checkAccepted)
}

// Checks implements remediation.SelfChecking.
func (a *imageChange) Checks() []remediation.PreflightCheck {
	return []remediation.PreflightCheck{
		{ID: "image/lasts", Name: "nothing sets the image back", Run: a.checkLasts},
		{ID: "image/accepted", Name: "the image of " + a.version + " is accepted by the API server", Run: a.checkAccepted},
		{ID: "image/runs", Name: "the previous image can be pulled and runs", Run: func(context.Context) remediation.Result {
			return remediation.Unknown("backout starts no pod of its own: whether the registry still has the image shows when it is pulled", "start one with the previous image, and sign it off")
		}},
	}
}

// Rehearse implements remediation.Rehearser: the change is sent as a dry run.
func (a *imageChange) Rehearse(ctx context.Context) remediation.Result {
	return remediation.Trial(ctx, a.checkLasts, a.checkAccepted)
}

// Known checks that the service knows the flag, by each pod's own word.
func (a *flagChange) Known() remediation.PreflightCheck {
	return remediation.PreflightCheck{ID: "flag/" + a.flag.Name + "/known", Name: "the service knows " + a.flag.Name, Run: func(ctx context.Context) remediation.Result {
		s, err := a.seeDecides(ctx)
		if err != nil {
			return result(err)
		}
		if a.target.Probe.Flags != "" {
			return a.c.service(a.target).Knows(ctx, a.flag.Name)
		}
		const try = "set probe: {flags: ...} to a path that lists flags, or sign it off"
		if s.now == nil {
			return remediation.Unknown(s.String()+" does not set "+a.flag.Name+" yet; it is unknown whether the service reads it", try)
		}
		return remediation.Unknown("the service gets the variable; it is unknown whether its code reads it", try)
	}}
}

// result is what an error means to a check: without an answer, nothing is known.
func result(err error) remediation.Result { return remediation.ResultOf(jsonhttp.InDoubt(err)) }

func (a *change) checkLasts(ctx context.Context) remediation.Result {
	s, err := a.seeDecides(ctx)
	if err == nil {
		err = s.refuse()
	}
	if err != nil {
		return result(err)
	}
	return a.lasts(ctx, s.state)
}

// access is something that backout must be allowed to do.
type access struct{ verb, group, resource, name string }

// checkAccepted asks the API server whether backout may do all that it would, and sends
// the change as a dry run.
func (a *change) checkAccepted(ctx context.Context) remediation.Result {
	s, err := a.seeDecides(ctx)
	if err == nil {
		err = s.refuse()
	}
	if err != nil {
		return result(err)
	}
	needs := []access{
		{"get", "apps", s.t.Kind() + "s", s.t.Name()}, {"patch", "apps", s.t.Kind() + "s", s.t.Name()}, {"list", "", "pods", ""},
	}
	if s.cm != nil {
		needs = append(needs, access{"get", "", "configmaps", s.t.Flags.ConfigMap}, access{"patch", "", "configmaps", s.t.Flags.ConfigMap})
	}
	if s.t.Kind() == "statefulset" {
		needs = append(needs, access{"delete", "", "pods", s.t.Name() + "-0"})
	}
	for _, n := range needs {
		allowed, err := s.may(ctx, n)
		if err != nil {
			return result(err)
		}
		if !allowed {
			return remediation.Failed(fmt.Sprintf("backout may not %s %s in namespace %s", n.verb, n.resource, s.t.Namespace), "bind backout's Role there; for a StatefulSet, with its component")
		}
	}
	if replicas.Same(s.now, &s.want) && !s.stale() {
		return remediation.Passed(a.field.name() + " is " + s.want + " already, and backout may change it")
	}
	for _, r := range a.rehearsal(s) {
		if err := s.send(ctx, r.path, r.what, "&dryRun=All", r.list, nil); err != nil {
			return result(fmt.Errorf("dry run: %w", err))
		}
	}
	seen := fmt.Sprintf("dry run: %s from %s to %s is accepted", a.field.name(), shown(s.now), s.want)
	if s.w.Spec.Strategy.Type == "Recreate" {
		seen += "; with strategy Recreate, no pod serves for a moment"
	}
	return remediation.Passed(seen)
}

// rehearsal is all that the change would patch: a ConfigMap, and then the pods' template.
func (a *change) rehearsal(s seen) []request {
	all := a.forward(s, proofOf)
	if s.cm != nil && !replicas.Same(s.now, &s.want) {
		all = append(all, s.rehash(a.field, s.t.GitOps, proofOf, proofOf))
	}
	return all
}

// may asks whether backout is allowed something.
func (s *state) may(ctx context.Context, n access) (bool, error) {
	var review struct{ Status struct{ Allowed bool } }
	err := s.do(ctx, http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "application/json", map[string]any{
		"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
		"spec": map[string]any{"resourceAttributes": map[string]string{"namespace": s.t.Namespace, "verb": n.verb, "group": n.group, "resource": n.resource, "name": n.name}},
	}, &review)
	if err != nil {
		return false, fmt.Errorf("ask whether backout may %s %s: %w", n.verb, n.resource, err)
	}
	return review.Status.Allowed, nil
}

// watchEvery is the pause between two looks of a watch.
const watchEvery = lookEvery * 10

// Watch implements remediation.Watcher: it reports where the field gets another value than
// the wanted one, and where Flux's pause is taken away.
func (a *change) Watch(ctx context.Context, report func(what string)) error {
	return replicas.Watch(ctx, watchEvery, func(ctx context.Context) (wrong []string, err error) {
		s, err := a.see(ctx)
		if err != nil {
			return nil, err
		}
		if !replicas.Same(s.now, &s.want) {
			wrong = append(wrong, fmt.Sprintf("%s: %s is %s%s", s.place, a.field.name(), shown(s.now), a.by(s.state)))
		}
		if m, _, what := s.holder(); marks(m)[fluxMark] != "" && m.Annotations[fluxAnnotation] != fluxDisabled {
			wrong = append(wrong, what+": Flux is not paused any more")
		}
		return wrong, nil
	}, report)
}
