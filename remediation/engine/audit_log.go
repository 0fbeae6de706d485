package engine

import (
	"context"
	"log/slog"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// loggedDetail are the keys of a detail that serve's log has, in their order: what
// one needs to follow a decision. The audit log has all of it.
var loggedDetail = []string{"trigger", "value", "threshold", "verdict", "outcome", "reason", "until", "release", "stage", "to", "why", "error"}

// logEntry writes one line of serve's log for an entry that is on disk: the same
// facts as the audit log, under the same seq.
func (e *Engine) logEntry(en audit.Entry) {
	level := slog.LevelInfo
	switch en.Kind {
	case audit.KindReceived, audit.KindDuplicate: // one for each POST
		level = slog.LevelDebug
	case audit.KindInDoubt, audit.KindDrift, audit.KindBlind:
		level = slog.LevelWarn
	case audit.KindOutcome:
		if o := en.Detail["outcome"]; o == string(remediation.StepFailed) || o == string(remediation.StepUndone) {
			level = slog.LevelWarn
		}
	case audit.KindHeld:
		if en.Detail["reason"] == string(remediation.HoldStepFailed) {
			level = slog.LevelWarn
		}
	}
	attrs := []slog.Attr{slog.String("kind", string(en.Kind)), slog.Int64("seq", en.Seq)}
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("service", en.Service)
	add("incident", en.Incident)
	add("step", en.Step)
	if en.Actor != actorEngine {
		add("actor", en.Actor)
	}
	for _, key := range loggedDetail {
		if v, ok := en.Detail[key].(string); ok {
			add(key, v)
		}
	}
	e.log.LogAttrs(context.Background(), level, "audit", attrs...)
}
