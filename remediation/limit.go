package remediation

import (
	"fmt"
	"time"

	"github.com/locotoki/backout/alerts"
)

// RealmLimit is how many services of a realm may be rolled back within a time, over all
// their playbooks, without a person.
type RealmLimit struct {
	// Realm is one of LimitRealm; "" is every realm without a limit of its own.
	Realm    string
	Services alerts.Rate
}

// The realms of limits that are no host.
const (
	LimitRealmDefault = "default"
	LimitRealmCluster = "cluster"
)

// LimitRealm is where a target is, as limits count it: what can fail together. It is the
// realm in which a replica acts, and in Kubernetes the cluster.
func LimitRealm(t alerts.Target) string {
	switch {
	case t.Kubernetes != nil && t.Kubernetes.Context != "":
		return LimitRealmCluster + ":" + t.Kubernetes.Context
	case t.Kubernetes != nil:
		return LimitRealmCluster
	case t.Compose.Host != "":
		return RealmOfHost(t.Compose.Host)
	}
	return LimitRealmDefault
}

// GateRealm is the gate of a RealmLimit.
const GateRealm = "realm"

// Counts reports whether limits count an effect.
func (ef Effect) Counts() bool {
	return ef.Outcome != EffectUntouched && ef.Outcome != EffectReleased
}

// Forward reports whether an effect is of a promotion: rollbacks have limits of their
// own, and never wait for promotions.
func (ef Effect) Forward() bool { return ef.Action == ActionFlagSet }

// Back reports whether an effect is not of a promotion.
func (ef Effect) Back() bool { return !ef.Forward() }

// The scopes of a freeze.
const (
	ScopeAll        = "all"
	ScopePromotions = "promotions"
)

// Outlasts reports whether a freeze ends later than another, or never.
func (f Freeze) Outlasts(other Freeze) bool {
	return other.Until != nil && (f.Until == nil || f.Until.After(*other.Until))
}

// RanOut reports whether a freeze is over.
func (f Freeze) RanOut(now time.Time) bool { return f.Until != nil && !f.Until.After(now) }

// IsLimit reports whether a hold is one of a limit. Without an end it is the lock of a
// target.
func (r Reason) IsLimit() bool {
	return r == HoldRateLimit || r == HoldBlastRadius || r == HoldCooldown
}

// OverLimit returns the step that waits because of a limit alone, and that limit's gate: a
// commander can let it run. nil: there is none.
func (inc *Incident) OverLimit() (s *Step, gate string) {
	if s = inc.Step(inc.LastHeldStep); inc.Restore != nil {
		s = inc.ToRestore()
	} else if s == nil || !s.Open() {
		s = inc.Next()
	}
	if s == nil || inc.State != Waiting || !inc.Reason.IsLimit() || inc.Until == nil {
		return nil, ""
	}
	return s, inc.LastHeldGate
}

// LimitGates are the gates of limits, which a commander can open for one step.
func LimitGates() []string {
	return []string{"per_target", "per_service", "blast_radius", "cooldown", GateRealm}
}

// OverCommand is the command that lets a step run over a limit.
func OverCommand(incident, step, gate string) string {
	return fmt.Sprintf("backout approve %s %s --over=%s --reason=WHY", incident, step, gate)
}

// Over is a commander's word that lets a step run over one limit.
type Over struct {
	Gate  string    `json:"gate"`
	By    string    `json:"by"`
	Until time.Time `json:"until"`
}

// MayPass returns who let the step run over a limit, "" for nobody.
func (s *Step) MayPass(gate string, now time.Time) string {
	for _, over := range s.Over {
		if over.Gate == gate && over.Until.After(now) {
			return over.By
		}
	}
	return ""
}
