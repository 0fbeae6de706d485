package engine

import "context"

// FollowClock is what the engine does before each turn, also while an action runs.
func FollowClock(ctx context.Context, e *Engine) error { return e.followClock(ctx, &e.clock) }

// VerifyAudit is what the engine does at start and daily.
var VerifyAudit = (*Engine).verifyAudit
