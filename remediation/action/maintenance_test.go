package action

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// Files is what the kind acts through; tests put faults into it.
type Files interface {
	// Read returns "" if there is no such file; no file is empty.
	Read(ctx context.Context, path string) (string, error)
	// Write is atomic: the file has the old content or the new one.
	Write(ctx context.Context, path, content string) error
	Remove(ctx context.Context, path string) error
}

// maintenance closes a site: a web server answers 503 while the file is there.
type maintenance struct{ files Files }

type maintenanceParams struct {
	File string `yaml:"file"`
}

func (maintenance) Name() string      { return "maintenance" }
func (maintenance) Risk() alerts.Risk { return alerts.Reversible }
func (maintenance) NewParams() any    { return &maintenanceParams{} }

func (maintenance) CheckParams(_ *alerts.Playbook, params any) []alerts.ParamProblem {
	if p := params.(*maintenanceParams); !filepath.IsAbs(p.File) {
		return []alerts.ParamProblem{{Key: "file", Problem: fmt.Sprintf("%q is not an absolute path", p.File), Try: "file: /srv/site/closed"}}
	}
	return nil
}

func (maintenance) Target(_ *alerts.Playbook, params any) string {
	return "file:" + params.(*maintenanceParams).File
}

func (k maintenance) Bind(_ *alerts.Playbook, params any) (remediation.Action, error) {
	return &closing{k.files, params.(*maintenanceParams).File}, nil
}

// closing is the action of one step. The file holds the operation's id, which
// marks our own work.
type closing struct {
	files Files
	file  string
}

type closed struct {
	By string `json:"by"` // "": the site was open
}

func (a *closing) Look(ctx context.Context, _ string) (remediation.Look, error) {
	by, err := a.files.Read(ctx, a.file)
	if err != nil {
		return remediation.Look{}, fmt.Errorf("look at %s: %w", a.file, err)
	}
	position := remediation.Untouched // an atomic write leaves nothing half-way
	if by != "" {
		position = remediation.Wanted
	}
	raw, err := json.Marshal(closed{by})
	return remediation.Look{Position: position, Snapshot: raw}, err
}

func (a *closing) Apply(ctx context.Context, op string, _ json.RawMessage) error {
	look, err := a.Look(ctx, op)
	if err != nil || look.Position == remediation.Wanted {
		return err
	}
	if err := a.files.Write(ctx, a.file, op); err != nil {
		// Whether it is written is not known: the engine looks again.
		return remediation.InDoubt(fmt.Errorf("close the site by %s: %w", a.file, err))
	}
	return nil
}

func (a *closing) Verify(ctx context.Context, op string) error {
	look, err := a.Look(ctx, op)
	if err == nil && look.Position != remediation.Wanted {
		err = fmt.Errorf("%s is not there: the site is open", a.file)
	}
	return err
}

func (a *closing) Undo(ctx context.Context, op string, before json.RawMessage) error {
	var was closed
	if err := json.Unmarshal(before, &was); err != nil {
		return fmt.Errorf("snapshot of %s: %w", a.file, err)
	}
	by, err := a.files.Read(ctx, a.file)
	if err != nil {
		return fmt.Errorf("look at %s: %w", a.file, err)
	}
	if was.By != "" || by != op { // it was closed before, or another closed it
		return nil
	}
	if err := a.files.Remove(ctx, a.file); err != nil {
		return remediation.InDoubt(fmt.Errorf("open the site by %s: %w", a.file, err))
	}
	return nil
}
