package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// The tools that put back what others change, by their field managers.
const (
	toolFlux   = "Flux"
	toolArgoCD = "Argo CD"
)

var gitopsTools = map[string]string{
	"kustomize-controller": toolFlux, "flux": toolFlux, "helm-controller": "Flux's helm-controller",
	"argocd-controller": toolArgoCD, "argocd-application-controller": toolArgoCD, "fleetagent": "Fleet",
}

// owns reports whether a manager owns the field at a path.
func (m managed) owns(path []string) bool {
	at := m.FieldsV1
	for _, part := range path {
		next, ok := at[part].(map[string]any)
		if !ok {
			return false
		}
		at = next
	}
	return len(path) > 0
}

// owners are the managers of the field. Where backout has changed it, a tool that manages
// what is around it counts too: it owned the field before, and will set it again.
func (a *change) owners(s *state) (names []string) {
	m, _, _ := s.holder()
	path := a.field.owned(s)
	ours := slices.ContainsFunc(m.ManagedFields, func(m managed) bool { return m.Manager == fieldManager && m.owns(path) })
	for _, m := range m.ManagedFields {
		around := ours && gitopsTools[m.Manager] != "" && m.owns(path[:max(len(path)-1, 0)])
		if m.Manager != fieldManager && (m.owns(path) || around) && !slices.Contains(names, m.Manager) {
			names = append(names, m.Manager)
		}
	}
	return names
}

// by says who else manages the field, for an error.
func (a *change) by(s *state) string {
	if names := a.owners(s); len(names) > 0 {
		return " (managed by " + strings.Join(names, ", ") + ")"
	}
	return ""
}

// lasts checks that nothing puts the field back that the playbook does not know of. What another object controls may be
// put back by its controller; nothing shows whether it is.
func (a *change) lasts(ctx context.Context, s *state) remediation.Result {
	names := a.owners(s)
	g := s.t.GitOps
	for _, name := range names {
		switch tool := gitopsTools[name]; {
		case tool == "":
		case g == nil:
			try := "change it in git as part of the rollback, or let one tool own the field"
			switch tool {
			case toolFlux:
				try = "target: {kubernetes: {gitops: {flux: pause}}}"
			case toolArgoCD:
				try = "target: {kubernetes: {gitops: {argocd: ignore}}}, with ignoreDifferences in the Application"
			}
			return remediation.Failed(fmt.Sprintf("%s owns %s in %s, and %s would put it back: the playbook says nothing about it", name, a.field.name(), s.place, tool), try)
		case tool == toolFlux && g.Flux != alerts.FluxPause, tool == toolArgoCD && g.ArgoCD != alerts.ArgoCDIgnore, tool != toolFlux && tool != toolArgoCD:
			return remediation.Failed(fmt.Sprintf("%s owns %s in %s, and target.kubernetes.gitops is for another tool", name, a.field.name(), s.place), "name the tool that applies the object")
		}
	}
	var r remediation.Result
	switch {
	case g != nil && g.ArgoCD != "":
		r = s.argoIgnores(ctx)
	case len(names) > 0 && g == nil:
		r = remediation.Passed(a.field.name() + " was last set by " + strings.Join(names, ", ") + ", whose next apply sets it again")
	case g != nil:
		r = remediation.Passed("Flux is paused for " + s.String() + " together with the change")
	default:
		r = remediation.Passed("no GitOps tool owns " + a.field.name())
	}
	if by := s.controlledBy(); by != "" && r.Status == remediation.Pass {
		return remediation.Unknown(by+": its controller may put "+a.field.name()+" back", "set it with kubectl in a test namespace, see whether it stays, and sign it off")
	}
	return r
}

// controlledBy says which object owns what is changed, such as an operator's custom resource; "" if none does.
func (s *state) controlledBy() string {
	said := func(what string, m meta) string {
		for _, o := range m.OwnerReferences {
			if o.Controller {
				return what + " is controlled by " + o.Kind + " " + o.Name
			}
		}
		return ""
	}
	by := said(s.String(), s.w.Metadata)
	if s.cm != nil { // its hash goes into the workload's template
		by = cmp.Or(said(s.configMap(), s.cm.Metadata), by)
	}
	return by
}

const (
	argoNamespace = "argocd"
	argoTracking  = "argocd.argoproj.io/tracking-id"
	argoLabel     = "argocd.argoproj.io/instance"
)

// argoIgnores looks into the Application that the object belongs to: it must ignore the
// fields that backout manages, in a sync too.
func (s *state) argoIgnores(ctx context.Context) remediation.Result {
	m, _, holder := s.holder()
	app, _, _ := strings.Cut(m.Annotations[argoTracking], ":")
	if app == "" {
		app = m.Labels[argoLabel]
	}
	if app == "" {
		return remediation.Unknown("no annotation of "+holder+" names its Argo CD Application", "check that ignoreDifferences lists the manager backout, and sign it off")
	}
	namespace := argoNamespace
	if ns, name, ok := strings.Cut(app, "_"); ok { // an Application outside of Argo CD's own namespace
		namespace, app = ns, name
	}
	var application struct {
		Spec struct {
			IgnoreDifferences []struct {
				Group, Kind, Name, Namespace string
				ManagedFieldsManagers        []string
			}
			SyncPolicy struct{ SyncOptions []string }
		}
	}
	what := "application " + namespace + "/" + app
	if err := s.do(ctx, http.MethodGet, "/apis/argoproj.io/v1alpha1/namespaces/"+namespace+"/applications/"+app, "", nil, &application); err != nil {
		return remediation.Unknown("look at "+what+": "+err.Error(), "let backout get it, or check that ignoreDifferences lists the manager backout, and sign it off")
	}
	kind := map[string]string{"deployment": "Deployment", "statefulset": "StatefulSet"}[s.t.Kind()]
	// As Argo CD does: group and kind are globs, name and namespace may be left out.
	ignored := func(group, kind, name string) bool {
		for _, d := range application.Spec.IgnoreDifferences {
			groups, _ := path.Match(d.Group, group)
			kinds, _ := path.Match(d.Kind, kind)
			if groups && kinds && cmp.Or(d.Name, name) == name && cmp.Or(d.Namespace, s.t.Namespace) == s.t.Namespace && slices.Contains(d.ManagedFieldsManagers, fieldManager) {
				return true
			}
		}
		return false
	}
	switch {
	case !ignored("apps", kind, s.t.Name()):
		return remediation.Failed(what+" does not ignore what backout manages of "+s.String(), "spec.ignoreDifferences: [{group: apps, kind: "+kind+", managedFieldsManagers: [backout]}]")
	case s.cm != nil && !ignored("", "ConfigMap", s.t.Flags.ConfigMap):
		return remediation.Failed(what+" does not ignore what backout manages of "+s.configMap(), "spec.ignoreDifferences: [{kind: ConfigMap, managedFieldsManagers: [backout]}]")
	case !slices.Contains(application.Spec.SyncPolicy.SyncOptions, "RespectIgnoreDifferences=true"):
		return remediation.Failed(what+" ignores it only when it compares, not when it syncs", "spec.syncPolicy.syncOptions: [RespectIgnoreDifferences=true]")
	}
	return remediation.Passed(what + " ignores the fields that backout manages")
}
