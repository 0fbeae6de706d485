package scenario

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action"
)

// The names of the targets that are not flags.
const (
	imageTarget  = "image"
	schemaTarget = "schema"
)

// targets are what runs: the flags, the image and the schema of the service, by name,
// each with a value. They are the tools of the real kinds of actions.
type targets struct {
	// dir is where schema snapshots are kept.
	dir string

	mu    sync.Mutex
	cells map[string]*cell
}

// cell is one target.
type cell struct {
	value string
	// by is the operation that set the value, or a person.
	by string
	// fails is why changes fail, "" while they work; changes counts those that worked.
	fails   string
	changes int
	// snapshot is the file that holds what a lossy change lost.
	snapshot string
}

func newTargets(dir string) *targets { return &targets{dir: dir, cells: map[string]*cell{}} }

// runs sets what a playbook's release runs: all flags on, with the given share of the
// traffic.
func (t *targets) runs(pb *alerts.Playbook, share string) {
	for _, f := range pb.Flags {
		t.cells[f.Name] = &cell{value: cmp.Or(f.On, share)}
	}
	t.cells[imageTarget] = &cell{value: pb.Release.Version}
	t.cells[schemaTarget] = &cell{value: pb.Release.Version}
}

// kinds are the kinds of actions on these targets.
func (t *targets) kinds() []remediation.ActionKind {
	return action.Kinds(action.Tools{Flags: t, LaunchDarkly: t, Unleash: t, Images: t, Schemas: t})
}

var (
	_ action.Shares  = (*targets)(nil)
	_ action.Images  = (*targets)(nil)
	_ action.Pins    = (*targets)(nil)
	_ action.Schemas = (*targets)(nil)
)

// FlagOff implements action.Flags.
func (t *targets) FlagOff(_ alerts.Target, flag alerts.Flag) (remediation.Action, error) {
	return &change{targets: t, name: flag.Name, to: flag.Off, risk: alerts.Reversible}, nil
}

// FlagShare implements action.Shares.
func (t *targets) FlagShare(_ alerts.Target, flag alerts.Flag, share string) (remediation.Action, error) {
	return &change{targets: t, name: flag.Name, to: share, risk: alerts.Reversible}, nil
}

// ImageRetag implements action.Images.
func (t *targets) ImageRetag(_ alerts.Target, _, previous string) (remediation.Action, error) {
	return &change{targets: t, name: imageTarget, to: previous, risk: alerts.Disruptive}, nil
}

// ImagePin implements action.Pins.
func (t *targets) ImagePin(_ alerts.Target, _, previous string) (remediation.Action, error) {
	return &change{targets: t, name: imageTarget, to: previous, risk: alerts.Disruptive}, nil
}

// Runs implements action.Images.
func (t *targets) Runs(_ context.Context, _ alerts.Target, _, version string) error {
	if now := t.value(imageTarget); now != version {
		return &remediation.VersionError{Versions: []string{version}, Err: fmt.Errorf("the service runs %s, not %s", now, version)}
	}
	return nil
}

// Smoke implements action.Images: a scenario has no pages to ask.
func (t *targets) Smoke(context.Context, alerts.SmokeCheck) error { return nil }

// Rollback implements action.Schemas.
func (t *targets) Rollback(s remediation.SchemaRollback) (remediation.Action, error) {
	return &change{targets: t, name: schemaTarget, to: s.Version, risk: alerts.Lossy, tolerated: s.Tolerated}, nil
}

// names are those of all targets, sorted.
func (t *targets) names() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	for name := range t.cells {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// value is what a target has now.
func (t *targets) value(name string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.cells[name].value
}

// set is a change by a person's hand.
func (t *targets) set(name, value, by string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.cells[name]
	c.value, c.by = value, by
	c.changes++
}

// fail makes each change of a target fail; "" fixes it.
func (t *targets) fail(name, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cells[name].fails = why
}

// change is the action that gives one target a value.
type change struct {
	*targets
	name, to string
	risk     alerts.Risk
	// tolerated, where set, says why what runs would not work with it.
	tolerated func(ctx context.Context) error
	// fault, where a test sets it, meets each change of the target.
	fault func(ctx context.Context, effect func()) error
}

// seen is a snapshot: what a target had, and where what is lost would be kept.
type seen struct {
	Value string `json:"value"`
	Dump  dump   `json:"dump,omitzero"`
}

type dump struct {
	Path string `json:"path,omitempty"`
}

// Look implements remediation.Action. A value is set in one go: nothing is half-way.
func (c *change) Look(ctx context.Context, _ string) (remediation.Look, error) {
	c.mu.Lock()
	now := *c.cells[c.name]
	c.mu.Unlock()
	position := remediation.Untouched
	if now.value == c.to {
		position = remediation.Wanted
	} else if c.tolerated != nil {
		if err := c.tolerated(ctx); err != nil {
			return remediation.Look{}, err
		}
	}
	raw, err := json.Marshal(seen{now.value, dump{now.snapshot}})
	return remediation.Look{Position: position, Snapshot: raw}, err
}

// Apply implements remediation.Action.
func (c *change) Apply(ctx context.Context, op string, before json.RawMessage) error {
	look, err := c.Look(ctx, op)
	if err != nil || look.Position == remediation.Wanted {
		return err
	}
	was, err := read(before)
	if err != nil {
		return err
	}
	if now := c.value(c.name); c.risk != alerts.Reversible && now != was.Value {
		return fmt.Errorf("someone changed %s from %s to %s in between", c.name, was.Value, now)
	}
	if c.risk == alerts.Lossy {
		if err := c.keep(ctx, op); err != nil {
			return err
		}
	}
	return c.put(ctx, op, c.to)
}

// keep writes the snapshot of what the change loses.
func (c *change) keep(ctx context.Context, op string) error {
	path := filepath.Join(c.dir, strings.NewReplacer("/", "-", "@", "-").Replace(op)+".dump")
	if err := os.WriteFile(path, []byte(c.value(c.name)), 0o600); err != nil {
		return fmt.Errorf("keep a snapshot of %s: %w", c.name, err)
	}
	return c.meet(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cells[c.name].snapshot = path
	})
}

// put sets the value.
func (c *change) put(ctx context.Context, op, value string) error {
	c.mu.Lock()
	fails := c.cells[c.name].fails
	c.mu.Unlock()
	if fails != "" {
		return errors.New(fails)
	}
	return c.meet(ctx, func() { c.set(c.name, value, op) })
}

func (c *change) meet(ctx context.Context, effect func()) error {
	if c.fault != nil {
		return c.fault(ctx, effect)
	}
	effect()
	return nil
}

// Verify implements remediation.Action.
func (c *change) Verify(context.Context, string) error {
	if now := c.value(c.name); now != c.to {
		return fmt.Errorf("%s is %s, not %s", c.name, now, c.to)
	}
	return nil
}

// Undo implements remediation.Action.
func (c *change) Undo(ctx context.Context, op string, before json.RawMessage) error {
	was, err := read(before)
	if err != nil {
		return err
	}
	c.mu.Lock()
	now := *c.cells[c.name]
	c.mu.Unlock()
	switch {
	case now.value != c.to || now.by != op || was.Value == c.to: // it is not our work
		return nil
	case c.risk == alerts.Lossy:
		return fmt.Errorf("%s lost data, which nothing restores; its snapshot is %s", c.name, now.snapshot)
	}
	return c.put(ctx, op, was.Value)
}

func read(before json.RawMessage) (was seen, err error) {
	if err := json.Unmarshal(before, &was); err != nil {
		return was, fmt.Errorf("read what was there before: %w", err)
	}
	return was, nil
}
