package remediation

import (
	"time"
)

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
