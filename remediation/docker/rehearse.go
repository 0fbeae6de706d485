package docker

import (
	"context"

	"github.com/locotoki/backout/remediation"
)

var (
	_ remediation.Rehearser = (*flagOff)(nil)
	_ remediation.Rehearser = (*imageRetag)(nil)
)

// Rehearse implements remediation.Rehearser: .env is looked at, and a copy of what
// runs is started aside with the flag off.
func (a *flagOff) Rehearse(ctx context.Context) remediation.Result {
	return remediation.Trial(ctx, a.checkLasts, a.checkOff)
}

// Rehearse implements remediation.Rehearser: the tags are looked at, and the previous
// image is started aside.
func (a *imageRetag) Rehearse(ctx context.Context) remediation.Result {
	return remediation.Trial(ctx, a.checkPrevious, a.checkRuns)
}
