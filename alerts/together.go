package alerts

import "fmt"

// CheckTogether reports playbooks that cannot be served side by side: two of
// one service, or two that act on one compose service. The error is Problems.
func CheckTogether(playbooks []*Playbook) error {
	var ps Problems
	services, targets := map[string]*Playbook{}, map[ComposeTarget]*Playbook{}
	for _, p := range playbooks {
		add := func(path string, first *Playbook, message, try string) {
			ps = append(ps, Problem{
				File: p.pos.file, Line: p.pos.line(path),
				Message: fmt.Sprintf("%s (%s:%d)", message, first.pos.file, first.pos.line(path)), Try: try,
			})
		}
		if first, ok := services[p.Service]; ok {
			add("service", first, fmt.Sprintf("the service %q has a playbook already", p.Service), "give one playbook a service")
		} else {
			services[p.Service] = p
		}
		t := p.Target.Compose
		if first, ok := targets[t]; ok {
			add("target.compose", first, fmt.Sprintf("the compose service %q in %s is the target of another playbook", t.Service, t.ProjectDir), "let one playbook act on it")
		} else {
			targets[t] = p
		}
	}
	if len(ps) == 0 {
		return nil
	}
	return ps.sorted()
}
