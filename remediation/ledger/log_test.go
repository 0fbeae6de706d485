package ledger

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

func TestAnEntryOfEachKindIsOneLine(t *testing.T) {
	type detail = map[string]any
	gates := []any{detail{"gate": "mode", "ok": true, "why": ""}, detail{"gate": "rate_limit", "ok": false, "why": "3 of 3 in 1h"}}
	samples := []any{
		detail{"trigger": "latency", "threshold": "0.75", "verdict": "calm", "value": "0.2"},
		detail{"trigger": "error_rate", "threshold": "0.01", "verdict": "breaching", "value": "0.12"},
	}
	tests := map[audit.Kind]struct {
		detail detail
		want   string
	}{
		audit.KindReceived:  {detail{"alerts": []any{}}, ""},
		audit.KindDuplicate: {detail{"alerts": []any{}}, ""},
		audit.KindOpened:    {detail{"trigger": "error_rate", "drill": false}, "trigger=error_rate drill=false"},
		audit.KindAttached:  {detail{"trigger": "error_rate"}, "trigger=error_rate"},
		audit.KindReopened:  {detail{"trigger": "error_rate"}, "trigger=error_rate"},
		audit.KindPlanned:   {detail{"trigger": "error_rate", "steps": []any{"flag_off"}}, "trigger=error_rate"},
		audit.KindHeld: {
			detail{"reason": "rate_limit", "why": "wait", "gates": gates, "triggers": samples, "until": "2026-11-22T03:00:00Z"},
			"trigger=error_rate value=0.12 threshold=0.01 verdict=breaching reason=rate_limit until=2026-11-22T03:00:00Z gate=rate_limit why=wait",
		},
		audit.KindApproved: {detail{"what": "preflight", "reason": "rehearsed"}, "what=preflight reason=rehearsed"},
		audit.KindDenied:   {detail{"reason": "no"}, "reason=no"},
		audit.KindIntent:   {detail{"undo": true, "target": "flag:A", "gates": gates[:1]}, "target=flag:A undo=true"},
		audit.KindOutcome:  {detail{"outcome": "done", "target": "flag:A", "why": "it was off"}, `outcome=done target=flag:A why="it was off"`},
		audit.KindInDoubt:  {detail{"why": "cut off", "target": "image:shop"}, `target=image:shop why="cut off"`},
		audit.KindVerified: {detail{"target": "image:shop"}, "target=image:shop"},
		audit.KindSettled:  {detail{"triggers": samples[:1]}, "trigger=latency value=0.2 threshold=0.75 verdict=calm"},
		audit.KindEscalated: {
			detail{"triggers": []any{detail{"trigger": "latency", "threshold": "0.75", "error": "no answer"}}},
			`trigger=latency threshold=0.75 error="no answer"`,
		},
		audit.KindRecovered:   {detail{"triggers": samples[:1]}, "trigger=latency value=0.2 threshold=0.75 verdict=calm"},
		audit.KindResolved:    {detail{"trigger": "latency"}, "trigger=latency"},
		audit.KindClosed:      {detail{"triggers": samples[:1], "why": "recovered"}, "trigger=latency value=0.2 threshold=0.75 verdict=calm why=recovered"},
		audit.KindClaimed:     {detail{"reason": "mine"}, "reason=mine"},
		audit.KindReleased:    {detail{"reason": "yours"}, "reason=yours"},
		audit.KindRestored:    {detail{"reason": "false alarm", "force": true}, `reason="false alarm" force=true`},
		audit.KindFrozen:      {detail{"scope": "steps", "reason": "audit"}, "reason=audit scope=steps"},
		audit.KindThawed:      {detail{"scope": "steps", "reason": "over"}, "reason=over scope=steps"},
		audit.KindSignal:      {detail{"signal": "breach", "raised": false, "reason": "over"}, "signal=breach reason=over raised=false"},
		audit.KindStage:       {detail{"state": "active", "stage": "alpha", "release": "v2", "gates": gates[:1]}, "state=active release=v2 stage=alpha"},
		audit.KindNotified:    {detail{"metric": "backout_needs_human", "reason": "stuck", "why": "3 attempts"}, `metric=backout_needs_human reason=stuck why="3 attempts"`},
		audit.KindDrift:       {detail{"target": "image:shop", "why": "v3 runs"}, `target=image:shop why="v3 runs"`},
		audit.KindBlind:       {detail{"blind": true, "what": "prometheus", "why": "refused"}, "what=prometheus why=refused blind=true"},
		audit.KindLease:       {detail{"realm": "shop", "epoch": int64(2), "state": "taken"}, "realm=shop state=taken"},
		audit.KindLateOutcome: {detail{"realm": "shop", "target": "flag:A", "outcome": "done"}, "realm=shop outcome=done target=flag:A"},
		audit.KindCheckpoint:  {detail{}, ""},
		audit.KindStarted:     {detail{"reload": true}, "reload=true"},
	}
	for _, kind := range audit.Kinds() {
		tt, ok := tests[kind]
		if !ok {
			t.Errorf("no entry of kind %s is tried", kind)
			continue
		}
		en, err := audit.Entry{
			Kind: kind, Actor: remediation.ActorEngine, Service: "shop", Incident: "inc-1", Step: "1-flag_off", Action: "flag_off", Detail: tt.detail,
		}.Normal()
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		l := &Ledger{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		}}))}
		l.logEntry(en)
		want := "msg=audit kind=" + string(kind) + " seq=0 service=shop incident=inc-1 step=1-flag_off action=flag_off"
		if tt.want != "" {
			want += " " + tt.want
		}
		if got := log.String(); got != want+"\n" {
			t.Errorf("%s:\n%swant\n%s", kind, got, want)
		}
	}
}
