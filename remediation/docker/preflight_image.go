package docker

import (
	"context"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
)

var (
	_ remediation.SelfChecking = (*imageRetag)(nil)
	_ remediation.Sweeper      = (*imageRetag)(nil)
)

// Checks implements remediation.SelfChecking.
func (a *imageRetag) Checks() []remediation.PreflightCheck {
	return []remediation.PreflightCheck{
		{ID: "image/previous", Name: "the previous image exists, and its tag is what the service runs", Run: a.checkPrevious},
		{ID: "image/runs", Name: "the previous image runs", Run: a.checkRuns},
	}
}

// Sweep implements remediation.Sweeper.
func (a *imageRetag) Sweep(ctx context.Context) error { return a.c.sweep(ctx, a.target.Compose) }

// proofOf is the operation as which a proof looks; no incident has it.
const proofOf = "preflight"

func (a *imageRetag) checkPrevious(ctx context.Context) remediation.Result {
	st, err := a.stand(ctx, proofOf, a.c.Found)
	if err != nil {
		return remediation.ResultOf(doubtful(ctx, err))
	}
	return remediation.Passed(st.snap.Previous + " is " + compose.ShortImage(st.snap.PreviousID) + ", and " + st.snap.Image + " is what the service runs")
}

// checkRuns starts the previous image aside.
func (a *imageRetag) checkRuns(ctx context.Context) remediation.Result {
	f, err := a.c.FoundWhole(ctx, a.target.Compose)
	if err != nil {
		return remediation.ResultOf(doubtful(ctx, err))
	}
	name, id, err := a.c.VersionOf(ctx, f, a.image, a.version)
	if err != nil {
		return remediation.ResultOf(doubtful(ctx, err))
	}
	if id == "" {
		return remediation.ResultOf(fleet.NoImage(name))
	}
	k := fleet.CheckOf(a.target.Probe)
	k.Wants = a.version
	_, found := aside{c: a.c, target: a.target, image: id, check: k}.run(ctx)
	return found
}
