package kubetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/locotoki/backout/deploy/kube"
)

// Overlay builds a kustomization, in which HERE is a folder of manifests.
func (l *Lab) Overlay(here, kustomization string) string {
	l.t.Helper()
	dir := l.t.TempDir()
	here, err := filepath.Abs(here)
	if err == nil {
		here, err = filepath.Rel(dir, here)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(strings.ReplaceAll(kustomization, "HERE", here)), 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	build := exec.Command("kustomize", "build", dir)
	var problem strings.Builder
	build.Stderr = &problem
	out, err := build.Output()
	if err != nil {
		l.t.Fatalf("kustomize build: %v\n%s", err, &problem)
	}
	return string(out)
}

// Rights applies what backout may do in the namespace of a target, target is the folder deploy/kubernetes/target, for a
// service account there. more has further patches and lines of the kustomization.
func (l *Lab) Rights(target, more string) *kube.Client {
	l.t.Helper()
	l.Apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: backout}}")
	l.Apply(l.Overlay(target, `
resources: [HERE]
namespace: `+l.Namespace+`
patches:
  - target: {kind: RoleBinding, name: backout}
    patch: '- {op: replace, path: /subjects/0/namespace, value: `+l.Namespace+`}'
`+more))
	return l.ServiceAccount("backout")
}
