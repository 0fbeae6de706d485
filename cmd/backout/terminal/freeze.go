package terminal

import (
	"time"

	"github.com/locotoki/backout/remediation"
)

// Freeze describes a freeze on several lines.
func Freeze(f remediation.Freeze, now time.Time) string {
	what := "no steps, no promotions"
	if f.Scope == remediation.ScopePromotions {
		what = "no promotions, rollbacks still run"
	}
	until := "until thawed"
	if f.Until != nil {
		until = "until " + remediation.MomentFrom(now, *f.Until)
	}
	by := "because"
	if f.By != "" {
		by = "by " + f.By
	}
	return EveryOr(f.Service) + "\n" + Wrap("  ", what+",") + Wrap("  ", until+",") + Wrap("  ", by+": "+f.Reason)
}

// ThawCommand is the command that ends a freeze.
func ThawCommand(f remediation.Freeze) string {
	if f.Service == "" {
		return "backout thaw --reason=WHY"
	}
	return "backout thaw --service=" + Clean(f.Service) + " --reason=WHY"
}

// EveryOr names a service, or says that there is no one service.
func EveryOr(service string) string {
	if service == "" {
		return "every service"
	}
	return "service " + Clean(service)
}
