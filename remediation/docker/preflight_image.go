package docker

import (
	"context"

	"github.com/locotoki/backout/remediation"
)

var (
	_ remediation.Prover  = (*imageRetag)(nil)
	_ remediation.Sweeper = (*imageRetag)(nil)
)

// Proofs implements remediation.Prover.
func (a *imageRetag) Proofs() []remediation.Proof {
	return []remediation.Proof{
		{ID: "image/previous", Name: "the previous image exists, and its tag is what the service runs", Prove: a.provePrevious},
		{ID: "image/runs", Name: "the previous image runs", Prove: a.proveRuns},
	}
}

// Sweep implements remediation.Sweeper.
func (a *imageRetag) Sweep(ctx context.Context) error { return a.c.sweep(ctx, a.target.Compose) }

// proofOf is the operation as which a proof looks; no incident has it.
const proofOf = "preflight"

func (a *imageRetag) provePrevious(ctx context.Context) remediation.Finding {
	st, err := a.stand(ctx, proofOf, a.c.found)
	if err != nil {
		return remediation.FindingOf(doubtful(ctx, err))
	}
	return remediation.Passed(st.snap.Previous + " is " + shortImage(st.snap.PreviousID) + ", and " + st.snap.Image + " is what the service runs")
}

// proveRuns starts the previous image aside.
func (a *imageRetag) proveRuns(ctx context.Context) remediation.Finding {
	f, err := a.c.found(ctx, a.target.Compose)
	if err != nil {
		return remediation.FindingOf(doubtful(ctx, err))
	}
	name, id, err := a.c.versionOf(ctx, f, a.image, a.version)
	if err != nil {
		return remediation.FindingOf(doubtful(ctx, err))
	}
	if id == "" {
		return remediation.FindingOf(missing(name))
	}
	k := checkOf(a.target.Probe, "", setting{})
	k.wants = a.version
	_, found := aside{c: a.c, target: a.target, image: id, check: k}.run(ctx)
	return found
}
