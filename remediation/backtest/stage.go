package backtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/rules"
)

// staysOf reads the recorded stage: what continues while backout is not scraped, for as
// long as the rules carry it.
func staysOf(pb *alerts.Playbook, index *series) (stays []rules.Stay, recorded bool) {
	known, at := 0, int64(0) // the last stage, and when it was exported
	for i := index.first; i <= index.last; i++ {
		v := index.values[i-index.first]
		switch {
		case !math.IsNaN(v):
			known, at, recorded = int(v), i, true
		case index.span(int(i-at)) > rules.StageCarried:
			known = 0
		}
		if known <= 0 || known > len(pb.Stages) {
			continue
		}
		name := pb.Stages[known-1].Name
		if n := len(stays); n == 0 || stays[n-1].Stage != name || !stays[n-1].To.Equal(index.at(i)) {
			stays = append(stays, rules.Stay{Stage: name, From: index.at(i)})
		}
		stays[len(stays)-1].To = index.at(i + 1)
	}
	return stays, recorded
}

// within are the parts of a grid in which an alert counts: its expression has no value
// elsewhere, but Prometheus would work as hard to find that.
func within(a *rules.Replayed, stays []rules.Stay, g grid) (parts []grid) {
	if len(a.Stages) == 0 {
		return []grid{g}
	}
	for _, s := range stays {
		part := g // in whole seconds, as the expression has it
		part.first, part.last = max(g.first, g.ceil(s.From.Truncate(time.Second))), min(g.last, g.ceil(s.To.Truncate(time.Second))-1)
		switch n := len(parts); {
		case part.len() == 0 || !slices.Contains(a.Stages, s.Stage):
		case n > 0 && parts[n-1].last+1 == part.first:
			parts[n-1].last = part.last
		default:
			parts = append(parts, part)
		}
	}
	return parts
}

// stageAt is the stage at a moment, "" where none is known.
func stageAt(stays []rules.Stay, t time.Time) string {
	for _, s := range stays {
		if !t.Before(s.From) && t.Before(s.To) {
			return s.Stage
		}
	}
	return ""
}

// assumedRollout is one entry of a list of past rollouts.
type assumedRollout struct {
	Stages []struct {
		Stage string    `yaml:"stage"`
		From  time.Time `yaml:"from"`
	} `yaml:"stages"`
	// Ended is when it ended: the last stage lasts until then.
	Ended time.Time `yaml:"ended"`
}

// ReadRollouts reads a list of past rollouts in YAML, each with its stages, when each
// began, and when the rollout ended. The error has all mistakes.
func ReadRollouts(pb *alerts.Playbook, content []byte) ([]rules.Stay, error) {
	dec := yaml.NewDecoder(bytes.NewReader(content))
	dec.KnownFields(true)
	var list []assumedRollout
	if err := dec.Decode(&list); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var errs []error
	var stays []rules.Stay
	for n, r := range list {
		fail := func(try, format string, args ...any) {
			errs = append(errs, hint.Add(fmt.Errorf("rollout %d: %s", n+1, fmt.Sprintf(format, args...)), "%s", try))
		}
		if len(r.Stages) == 0 {
			fail("stages: [{stage: "+firstStage(pb)+", from: 2026-01-02T15:04:05Z}]", "it has no stages")
		}
		if r.Ended.IsZero() {
			fail("ended: 2026-01-02T15:04:05Z", "ended is missing")
		}
		for i, s := range r.Stages {
			stay := rules.Stay{Stage: s.Stage, From: s.From.UTC(), To: r.Ended.UTC()}
			if i+1 < len(r.Stages) {
				stay.To = r.Stages[i+1].From.UTC()
			}
			switch {
			case pb.Stage(s.Stage) == nil:
				fail("one of "+remediation.Names(remediation.StageNames(pb), ""), "the playbook has no stage %q", s.Stage)
			case s.From.IsZero():
				fail("from: 2026-01-02T15:04:05Z", "stage %s has no from", s.Stage)
			case !stay.From.Before(stay.To):
				fail("", "stage %s begins at %s, and what follows at %s is not later", s.Stage, stay.From.Format(time.RFC3339), stay.To.Format(time.RFC3339))
			}
			stays = append(stays, stay)
		}
	}
	slices.SortStableFunc(stays, func(a, b rules.Stay) int { return a.From.Compare(b.From) })
	for i := 1; i < len(stays) && len(errs) == 0; i++ {
		if stays[i].From.Before(stays[i-1].To) {
			errs = append(errs, fmt.Errorf("stage %s begins at %s, before stage %s ended at %s", stays[i].Stage, stays[i].From.Format(time.RFC3339), stays[i-1].Stage, stays[i-1].To.Format(time.RFC3339)))
		}
	}
	return stays, errors.Join(errs...)
}

func firstStage(pb *alerts.Playbook) string {
	if len(pb.Stages) == 0 {
		return "NAME"
	}
	return pb.Stages[0].Name
}
