package actiontest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// Board is a target in memory: a row of switches that its action turns off one
// after the other. It is an ActionKind of any name and risk as well as the action,
// so that an engine's tests can put it into a plan.
type Board struct {
	KindName string
	Class    alerts.Risk
	// Refuse, if it is set, is what Look answers; Broken what Verify answers.
	Refuse, Broken error

	state *boardState
	fault func(ctx context.Context, call int, effect func()) error
	calls int
}

// boardState is shared by a board and those cut from it.
type boardState struct {
	mu       sync.Mutex
	switches []string // "on", "off", or what somebody set
	effects  []string
}

// NewBoard returns a board with n switches, all on.
func NewBoard(kind string, class alerts.Risk, n int) *Board {
	b := &Board{KindName: kind, Class: class, state: &boardState{}}
	for range n {
		b.state.switches = append(b.state.switches, "on")
	}
	return b
}

// Effects returns every change made, such as "inc-1/1-test@1: 0=off".
func (b *Board) Effects() []string {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	return append([]string(nil), b.state.effects...)
}

// State returns all switches.
func (b *Board) State() string {
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	return strings.Join(b.state.switches, " ")
}

// Set turns one switch, as somebody else would.
func (b *Board) Set(i int, to string) { b.state.set("somebody", i, to) }

func (s *boardState) set(who string, i int, to string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.switches[i] = to
	s.effects = append(s.effects, fmt.Sprintf("%s: %d=%s", who, i, to))
}

// Cut returns a board on the same switches whose n-th change meets a fault.
func (b *Board) Cut(n int, f Fault) (cut *Board, fired func() bool) {
	dup := *b
	dup.calls = 0
	hit := false
	dup.fault = func(ctx context.Context, call int, effect func()) error {
		if call != n {
			effect()
			return nil
		}
		hit = true
		switch f {
		case Before:
			return remediation.InDoubt(errors.New("cut off before the effect"))
		case Hang:
			effect()
			return remediation.InDoubt(Unanswered(ctx))
		}
		effect()
		return remediation.InDoubt(errors.New("cut off after the effect"))
	}
	return &dup, func() bool { return hit }
}

// Name implements alerts.ActionKind.
func (b *Board) Name() string { return b.KindName }

// Risk implements alerts.ActionKind.
func (b *Board) Risk() alerts.Risk { return b.Class }

// NewParams implements alerts.ActionKind: there are none.
func (b *Board) NewParams() any { return &struct{}{} }

// CheckParams implements alerts.ActionKind.
func (b *Board) CheckParams(*alerts.Playbook, any) []alerts.ParamProblem { return nil }

// Target implements remediation.ActionKind.
func (b *Board) Target(*alerts.Playbook, any) string { return "board:" + b.KindName }

// Bind implements remediation.ActionKind.
func (b *Board) Bind(*alerts.Playbook, any) (remediation.Action, error) { return b, nil }

// Look implements remediation.Action. A board with some of its switches off is
// half-way: it does not know who turned them.
func (b *Board) Look(context.Context, string) (remediation.Look, error) {
	if b.Refuse != nil {
		return remediation.Look{}, b.Refuse
	}
	b.state.mu.Lock()
	defer b.state.mu.Unlock()
	off := 0
	for _, s := range b.state.switches {
		if s == "off" {
			off++
		}
	}
	position := remediation.HalfWay
	switch off {
	case len(b.state.switches):
		position = remediation.Wanted
	case 0:
		position = remediation.Untouched
	}
	raw, err := json.Marshal(b.state.switches)
	return remediation.Look{Position: position, Snapshot: raw}, err
}

// Apply implements remediation.Action.
func (b *Board) Apply(ctx context.Context, op string, _ json.RawMessage) error {
	return b.put(ctx, op, func(int) string { return "off" })
}

// Verify implements remediation.Action.
func (b *Board) Verify(context.Context, string) error { return b.Broken }

// Undo implements remediation.Action.
func (b *Board) Undo(ctx context.Context, op string, before json.RawMessage) error {
	var was []string
	if err := json.Unmarshal(before, &was); err != nil {
		return fmt.Errorf("snapshot of %s: %w", b.KindName, err)
	}
	if len(was) != len(strings.Fields(b.State())) {
		return fmt.Errorf("snapshot of %s has %d switches", b.KindName, len(was))
	}
	return b.put(ctx, op, func(i int) string { return was[i] })
}

func (b *Board) put(ctx context.Context, op string, to func(i int) string) error {
	for i, now := range strings.Fields(b.State()) {
		if now == to(i) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return remediation.InDoubt(err)
		}
		effect := func() { b.state.set(op, i, to(i)) }
		if b.fault == nil {
			effect()
			continue
		}
		b.calls++
		if err := b.fault(ctx, b.calls-1, effect); err != nil {
			return err
		}
	}
	return nil
}
