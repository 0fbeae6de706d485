package action

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// statusPage publishes the service's state: on the built-in page and, through the
// outbox, on the configured ones. It does not change production, so no gate holds it
// and no step waits for it.
type statusPage struct{}

type statusPageParams struct {
	// Components are names as the page shows them. Default: the playbook's.
	Components []string `yaml:"components"`
	// Status is the components' state while the incident is open: operational,
	// under_maintenance, degraded_performance, partial_outage or major_outage. Default:
	// degraded_performance, or what an earlier step said.
	Status string `yaml:"status"`
	// Message is what customers read, at most 5000 characters. Default: the playbook's
	// communications.status_page.messages.identified.
	Message string `yaml:"message"`
}

// maxMessage is how many characters pages accept, with a margin.
const maxMessage = 5000

func (statusPage) Name() string      { return "status_page" }
func (statusPage) Risk() alerts.Risk { return alerts.Reversible }
func (statusPage) NewParams() any    { return &statusPageParams{} }
func (statusPage) Communicates()     {}

func (statusPage) CheckParams(pb *alerts.Playbook, params any) []alerts.ParamProblem {
	p := params.(*statusPageParams)
	var problems []alerts.ParamProblem
	bad := func(key, try, problem string, args ...any) {
		problems = append(problems, alerts.ParamProblem{Key: key, Problem: fmt.Sprintf(problem, args...), Try: try})
	}
	if status := remediation.ComponentStatus(p.Status); p.Status != "" && !slices.Contains(remediation.ComponentStatuses(), status) {
		var known []string
		for _, s := range remediation.ComponentStatuses() {
			known = append(known, string(s))
		}
		bad("status", "one of "+strings.Join(known, ", "), "unknown component status %q", p.Status)
	}
	declared := declaredComponents(pb)
	for i, c := range p.Components {
		switch {
		case strings.TrimSpace(c) == "":
			bad("components", "components: [Analytics API]", "number %d has no name", i+1)
		case len(declared) > 0 && !slices.Contains(declared, c):
			bad("components", "one of "+strings.Join(declared, ", ")+", or declare it there", "communications.status_page has no component %q", c)
		case slices.Contains(p.Components[:i], c):
			bad("components", "leave it out", "%q is listed there twice", c)
		}
	}
	if n := len([]rune(p.Message)); n > maxMessage {
		bad("message", fmt.Sprintf("write at most %d", maxMessage), "it has %d characters", n)
	}
	return problems
}

// declaredComponents are those that the playbook shows on the status page.
func declaredComponents(pb *alerts.Playbook) []string {
	if pb.Communications == nil || pb.Communications.StatusPage == nil {
		return nil
	}
	var names []string
	for _, c := range pb.Communications.StatusPage.Components {
		names = append(names, c.Name)
	}
	return names
}

func (statusPage) Target(pb *alerts.Playbook, _ any) string { return "status_page:" + pb.Service }

// Announce implements remediation.Communicator.
func (statusPage) Announce(pb *alerts.Playbook, params any) remediation.Announcement {
	p := params.(*statusPageParams)
	a := remediation.Announcement{
		Components: p.Components, Status: remediation.ComponentStatus(p.Status), Words: strings.TrimSpace(p.Message),
	}
	if len(a.Components) == 0 {
		a.Components = declaredComponents(pb)
	}
	return a
}

// errTells says why there is no action to bind.
var errTells = errors.New("status_page only tells people something: it has no target to look at or change")

// Bind fails: the update goes through the outbox, in the transaction that ends the
// step.
func (statusPage) Bind(*alerts.Playbook, any) (remediation.Action, error) { return nil, errTells }
