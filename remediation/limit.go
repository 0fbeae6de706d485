package remediation

import (
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
