package engine

import (
	"time"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/plan"
)

// services is what the store keeps by service, read once for what shows all services: a
// query for each of a thousand takes too long.
type services struct {
	rollouts map[string]remediation.Rollout
	beats    map[string]remediation.Beat
	signals  map[string][]remediation.Signal
	// effects are those that a limit of some playbook still counts.
	effects map[string][]remediation.Effect
}

func readServices(tx remediation.Tx, plans []*plan.Plan, now time.Time) (*services, error) {
	s := &services{
		rollouts: map[string]remediation.Rollout{}, beats: map[string]remediation.Beat{},
		signals: map[string][]remediation.Signal{}, effects: map[string][]remediation.Effect{},
	}
	rollouts, err := tx.Rollouts()
	if err != nil {
		return nil, err
	}
	for _, r := range rollouts {
		s.rollouts[r.Service] = r
	}
	beats, err := tx.Beats()
	if err != nil {
		return nil, err
	}
	for _, b := range beats {
		s.beats[b.Service] = b
	}
	signals, err := tx.Signals()
	if err != nil {
		return nil, err
	}
	for _, sig := range signals {
		s.signals[sig.Service] = append(s.signals[sig.Service], sig)
	}
	longest := time.Duration(0)
	for _, p := range plans {
		longest = max(longest, p.Limits.PerService.Window, p.Limits.PerTarget.Window)
	}
	effects, err := tx.Effects("", now.Add(-longest))
	if err != nil {
		return nil, err
	}
	for _, ef := range effects {
		s.effects[ef.Service] = append(s.effects[ef.Service], ef)
	}
	return s, nil
}

// rollout is a service's, one of no state where it has none.
func (s *services) rollout(service string) remediation.Rollout {
	if r, ok := s.rollouts[service]; ok {
		return r
	}
	return remediation.NoRollout(service)
}

// signal is a raised one, or nil.
func (s *services) signal(service, name string) *remediation.Signal {
	for i := range s.signals[service] {
		if sig := &s.signals[service][i]; sig.Name == name {
			return sig
		}
	}
	return nil
}
