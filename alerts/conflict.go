package alerts

import "fmt"

// CheckConflicts reports playbooks that cannot be served by one backout: two of
// one service, or two that act on one compose service, one workload or one service of
// a Swarm. The error is Problems.
func CheckConflicts(playbooks []*Playbook) error {
	var ps Problems
	services, targets := map[string]*Playbook{}, []*Playbook{}
	for _, p := range playbooks {
		add := func(path string, first *Playbook, message, try string) {
			ps = append(ps, Problem{
				File: p.pos.file, Line: p.pos.line(path),
				Message: fmt.Sprintf("%s (%s:%d)", message, first.pos.file, first.pos.line(path)), Try: try,
			})
		}
		if first, ok := services[p.Service]; ok {
			add("service", first, fmt.Sprintf("the service %q already has a playbook", p.Service), "give one playbook per service")
		} else {
			services[p.Service] = p
		}
		for _, first := range targets {
			k, other := p.Target.Kubernetes, first.Target.Kubernetes
			if k != nil && other != nil && k.meets(other) {
				add("target.kubernetes", first, fmt.Sprintf("the %s %s in namespace %s is the target of another playbook", k.Kind(), k.Name(), k.Namespace), "let one playbook act on it")
				break
			}
			if s, other := p.Target.Swarm, first.Target.Swarm; s != nil && other != nil && s.Service == other.Service {
				add("target.swarm", first, fmt.Sprintf("the Swarm service %s is the target of another playbook", s.Service), "let one playbook act on it")
				break
			}
			if t := p.Target.Compose; p.Target.InCompose() && first.Target.InCompose() && first.Target.Compose.meets(t) {
				add("target.compose", first, fmt.Sprintf("the compose service %q in %s is the target of another playbook", t.Service, t.ProjectDir), "let one playbook act on it, or set project in each")
				break
			}
		}
		targets = append(targets, p)
	}
	if len(ps) == 0 {
		return nil
	}
	return ps.Sorted()
}

// meets reports whether two targets are one workload.
func (t *KubernetesTarget) meets(o *KubernetesTarget) bool {
	return t.Context == o.Context && t.Namespace == o.Namespace && t.Kind() == o.Kind() && t.Name() == o.Name()
}

// meets reports whether two targets may be the same containers: without a project's
// name, a target is whichever project the folder has.
func (t ComposeTarget) meets(o ComposeTarget) bool {
	return t.ProjectDir == o.ProjectDir && t.Service == o.Service && (t.Project == o.Project || t.Project == "" || o.Project == "")
}
