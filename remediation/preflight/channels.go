package preflight

import (
	"context"
	"slices"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
)

// slack is the name of the channel that a playbook may name although none is connected.
const slack = "slack"

// channelAccepts asks a channel whether it would deliver.
func (e *Checker) channelAccepts(ctx context.Context, b *plan.Plan, name string) remediation.Result {
	i := slices.IndexFunc(e.channels, func(ch remediation.Channel) bool { return ch.Name() == name })
	if i < 0 {
		return remediation.Unknown("the playbook names "+b.Communications.SlackChannel+", but backout is not connected to Slack",
			"check that Alertmanager's own Slack receiver works")
	}
	return accepts(ctx, e.channels[i])
}

// accepts asks a channel whether it would deliver.
func accepts(ctx context.Context, ch remediation.Channel) remediation.Result {
	a, ok := ch.(remediation.Accepter)
	if !ok {
		return remediation.Unknown(ch.Name()+" cannot be checked without sending a message", "check that its last message arrived")
	}
	if err := a.Accepts(ctx); err != nil {
		return remediation.ResultOf(err)
	}
	return remediation.Passed(ch.Name() + " answers and accepts the credentials")
}
