package action

import (
	"fmt"
	"slices"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// statusPage tells the public how the service is. It changes no production, so
// that nothing holds it and it holds nothing.
type statusPage struct{}

type statusPageParams struct {
	// Components are names as the page shows them; the playbook's by default.
	Components []string `yaml:"components"`
	// Status is the components' state while the incident is open.
	Status string `yaml:"status"`
	// Message is what the public reads first.
	Message string `yaml:"message"`
}

var componentStatuses = []string{"operational", "degraded_performance", "partial_outage", "major_outage", "under_maintenance"}

func (statusPage) Name() string      { return "status_page" }
func (statusPage) Risk() alerts.Risk { return alerts.Reversible }
func (statusPage) NewParams() any    { return &statusPageParams{} }
func (statusPage) Communicates()     {}

func (statusPage) CheckParams(_ *alerts.Playbook, params any) []alerts.ParamProblem {
	p := params.(*statusPageParams)
	var problems []alerts.ParamProblem
	if p.Status != "" && !slices.Contains(componentStatuses, p.Status) {
		problems = append(problems, alerts.ParamProblem{Key: "status", Problem: fmt.Sprintf("%q is no component's status", p.Status), Try: "one of " + strings.Join(componentStatuses, ", ")})
	}
	for i, c := range p.Components {
		if strings.TrimSpace(c) == "" {
			problems = append(problems, alerts.ParamProblem{Key: "components", Problem: fmt.Sprintf("number %d has no name", i+1), Try: "components: [Analytics API]"})
		}
	}
	return problems
}

func (statusPage) Target(pb *alerts.Playbook, _ any) string { return "status_page:" + pb.Service }

func (k statusPage) Bind(*alerts.Playbook, any) (remediation.Action, error) {
	return nil, notBuilt(k.Name())
}
