package backtest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// verdict says in a sentence what an alert would have done, and what to change. back is
// in how many incidents it would have rolled back, below 0 where that was not replayed.
func verdict(a *view.BacktestAlert, back int, during time.Duration, from view.StagesFrom) string {
	n := len(a.Firings)
	switch {
	case a.Judged == 0:
		return fmt.Sprintf("%s was not judged: %s.", a.Name(), outside(a.Stages, from))
	case a.Indicator == "" && n == 0:
		return fmt.Sprintf("%s was not raised.", a.Name()) + silent(a)
	case a.NoData == a.Judged && a.Unanswered == a.NoData:
		return fmt.Sprintf("%s had no value at any time: it can protect nothing. Correct what Prometheus could not evaluate.", a.Name())
	case a.NoData == a.Judged && a.BelowVolume == a.NoData:
		return fmt.Sprintf("%s never had min_volume events: it can protect nothing. Lower min_volume.", a.Name())
	case a.NoData == a.Judged:
		return fmt.Sprintf("%s had no value at any time: it can protect nothing. Check its query and its labels, or lower min_volume.", a.Name())
	case n == 0 && 10*(a.Judged-a.NoData) < a.Judged:
		return fmt.Sprintf("%s would not have fired in the %s in which it had a value%s: too little to conclude.%s",
			a.Name(), remediation.Span(a.Judged-a.NoData), nearMiss(a), silent(a))
	case n == 0:
		return fmt.Sprintf("%s would not have fired%s.%s", a.Name(), nearMiss(a), silent(a))
	}
	words := fmt.Sprintf("%s would have fired %s in %s", a.Name(), remediation.Counted(n, "time"), remediation.Span(during))
	switch {
	case a.Trigger != "" && a.Indicator != "" && back >= 0:
		words = fmt.Sprintf("%s would have rolled back %s in %s", a.Name(), remediation.Counted(back, "time"), remediation.Span(during))
		if back != n {
			words += fmt.Sprintf(" (%s)", remediation.Counted(n, "firing"))
		}
	case a.Trigger == "":
		words = fmt.Sprintf("%s would have warned %s in %s", a.Name(), remediation.Counted(n, "time"), remediation.Span(during))
	}
	if p := a.Proposal; p != nil {
		return words + proposed(a, p) + silent(a)
	}
	return words + "." + silent(a)
}

// outside says why a stage's trigger never counted.
func outside(stages []string, from view.StagesFrom) string {
	stage := strings.Join(stages, " or ")
	switch from {
	case view.StagesGiven:
		return fmt.Sprintf("it counts in the stage %s only, and another one was given", stage)
	case view.StagesAssumed:
		return fmt.Sprintf("no assumed rollout was in its stage %s at that time", stage)
	case view.StagesRecorded:
		return fmt.Sprintf("no recorded rollout was in its stage %s at that time. Use backout backtest with --stage=%s", stage, stages[0])
	}
	return fmt.Sprintf("no rollout is known to have been in its stage %s. Use backout backtest with --stage or --assume-rollouts", stage)
}

// proposed says what leaves out the short firings.
func proposed(a *view.BacktestAlert, p *view.BacktestProposal) string {
	were := "were"
	if p.Short == 1 {
		were = "was"
	}
	words := fmt.Sprintf("; %d %s shorter than %s", p.Short, were, remediation.Span(p.Below))
	var ways []string
	left := func(n int) string { return fmt.Sprintf(" (leaves %s)", remediation.Counted(n, "firing")) }
	if p.MinVolume != nil {
		ways = append(ways, fmt.Sprintf("raise min_volume to %s%s", strconv.FormatFloat(*p.MinVolume, 'f', -1, 64), left(p.LeftByVolume)))
	}
	if p.Threshold != nil {
		verb := "raise"
		if !a.Above {
			verb = "lower"
		}
		ways = append(ways, fmt.Sprintf("%s the bound to %s%s", verb, remediation.Measure(*p.Threshold, a.Unit), left(p.Left)))
	}
	if len(ways) == 0 {
		return words + ", and neither a bound nor a volume leaves out only those. Look at them."
	}
	return words + ": " + strings.Join(ways, ", or ") + "."
}

// nearMiss says how near an alert came to firing.
func nearMiss(a *view.BacktestAlert) string {
	if a.Nearest == nil {
		return ""
	}
	value := remediation.Measure(a.Nearest.Value, a.Unit)
	if a.Nearest.Percent == nil {
		return fmt.Sprintf("; its nearest value was %s", value)
	}
	return fmt.Sprintf("; its nearest value was %s, %s of its bound", value, view.Share(*a.Nearest.Percent))
}

// silent says that an alert had no value for a good part of the time.
func silent(a *view.BacktestAlert) string {
	unanswered := ""
	if a.Unanswered > 0 {
		unanswered = fmt.Sprintf(" Prometheus could not evaluate it for %s.", remediation.Span(a.Unanswered))
	}
	few := ""
	if a.BelowVolume > 0 {
		few = fmt.Sprintf(", of which %s below min_volume", remediation.Span(a.BelowVolume))
	}
	if 10*a.NoData < a.Judged {
		return unanswered
	}
	return fmt.Sprintf(" It had no value for %s of %s%s.", remediation.Span(a.NoData), remediation.Span(a.Judged), few) + unanswered
}
