package plan

import (
	"fmt"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// SwitchedOff is the flag that a step turned off or found off; nil if none.
func (b *Plan) SwitchedOff(s *remediation.Step) *alerts.Flag {
	if s.State != remediation.StepDone && s.State != remediation.StepNoChange {
		return nil
	}
	kind, ok := b.Kinds[s.Action].(remediation.FlagSwitch)
	if !ok {
		return nil
	}
	step, err := b.PlanStep(s)
	if err != nil {
		return nil
	}
	return b.Flag(kind.SwitchesOff(step.Params))
}

// BriefReady is what the team reads with the first public update, "" if the
// playbook has no support brief.
func (b *Plan) BriefReady(en audit.Entry) string {
	if en.Kind != audit.KindOutcome || fmt.Sprint(en.Detail["update"]) != "1" || b.Communications.SupportBrief == nil {
		return ""
	}
	return "Support brief is ready: backout incident brief " + en.Incident
}

// Mail is who gets mail about long incidents, nil if nobody does.
func (b *Plan) Mail() *alerts.Mail {
	if b.Communications == nil {
		return nil
	}
	return b.Communications.Mail
}

// TeamChannel is the team's Slack channel, "" if there is none.
func (b *Plan) TeamChannel() string {
	if b.Communications == nil {
		return ""
	}
	return b.Communications.SlackChannel
}
