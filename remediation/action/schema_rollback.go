package action

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
)

// Schemas rolls a database's schema back; remediation/postgres does it.
type Schemas interface {
	// Rollback looks at nothing outside.
	Rollback(s remediation.SchemaRollback) (remediation.Action, error)
}

// schemaRollback undoes a database's migrations: by Flyway's undo scripts, or by
// a command that the playbook names.
type schemaRollback struct {
	schemas   Schemas
	images    Images
	snapshots string
}

type schemaRollbackParams struct {
	// DSNFile is a file that holds the database's address with its password, as
	// postgres://USER:PASSWORD@HOST:PORT/DATABASE. An absolute path, mode 0600.
	DSNFile string `yaml:"dsn_file"`
	// ApplicationRoles are the database roles that the application connects as.
	ApplicationRoles []string `yaml:"application_roles"`
	// RunsWith are the versions of the code that work with the older schema. Default: the
	// release's previous.
	RunsWith []string `yaml:"runs_with"`
	// Flyway says where Flyway's undo scripts are. Write flyway or command.
	Flyway *flywayParams `yaml:"flyway"`
	// Command is the command that rolls the schema back, with its arguments; no shell
	// reads it.
	Command []string `yaml:"command"`
	// Dir is the folder in which the command runs, an absolute path.
	Dir string `yaml:"dir"`
	// Wanted is a query of one boolean: true once the command has done its work.
	Wanted string `yaml:"wanted"`
	// Restartable says that what runs outside a transaction may run again after a crash.
	Restartable bool `yaml:"restartable"`
	// Tables are the tables whose rows are counted before and after, and checked for writes since the snapshot began. Default: all.
	Tables []string `yaml:"tables"`
	// LockTimeout is how long a statement may wait for a lock. Default: 5s.
	LockTimeout model.Duration `yaml:"lock_timeout"`
	// StatementTimeout is how long a statement may take. Default: 5m.
	StatementTimeout model.Duration `yaml:"statement_timeout"`
}

// flywayParams says where the scripts are, and to which version to go back.
type flywayParams struct {
	// Dir is the folder of the scripts, an absolute path.
	Dir string `yaml:"dir"`
	// Version is the version of the schema to go back to.
	Version string `yaml:"version"`
	// DSNFile is the step's dsn_file, if that is not given.
	DSNFile string `yaml:"dsn_file"`
}

var flywayVersion = regexp.MustCompile(`^[0-9]+([._][0-9]+)*$`)

func (schemaRollback) Name() string      { return "schema_rollback" }
func (schemaRollback) Risk() alerts.Risk { return alerts.Lossy }
func (schemaRollback) NewParams() any    { return &schemaRollbackParams{} }

func (schemaRollback) CheckParams(_ *alerts.Playbook, params any) []alerts.ParamProblem {
	p := params.(*schemaRollbackParams)
	var problems []alerts.ParamProblem
	bad := func(key, try, problem string, args ...any) {
		problems = append(problems, alerts.ParamProblem{Key: key, Problem: fmt.Sprintf(problem, args...), Try: try})
	}
	p.checkCommand(bad)
	if f := p.Flyway; f != nil {
		if !filepath.IsAbs(f.Dir) {
			bad("flyway.dir", "dir: /srv/social-intel/db/migrations", "%q is not an absolute path", f.Dir)
		}
		if !flywayVersion.MatchString(f.Version) {
			bad("flyway.version", "version: 1.0.0", "%q is not a version", f.Version)
		}
		switch {
		case f.DSNFile != "" && p.DSNFile != "":
			bad("flyway.dsn_file", "dsn_file of the step alone", "dsn_file is given twice")
		case f.DSNFile != "" && !filepath.IsAbs(f.DSNFile), f.DSNFile == "" && p.DSNFile == "":
			bad("flyway.dsn_file", "dsn_file: /etc/backout/database.dsn", "%q is not an absolute path", f.DSNFile)
		}
	}
	if p.DSNFile != "" && !filepath.IsAbs(p.DSNFile) {
		bad("dsn_file", "dsn_file: /etc/backout/database.dsn", "%q is not an absolute path", p.DSNFile)
	}
	each := func(key, try, what string, names []string, ok func(string) bool) {
		for i, name := range names {
			if !ok(name) {
				bad(key, try, "%q is not a valid %s", name, what)
			} else if slices.Contains(names[:i], name) {
				bad(key, try, "%q is listed twice", name)
			}
		}
	}
	each("application_roles", "application_roles: [social_intel]", "role", p.ApplicationRoles, isName)
	each("runs_with", "runs_with: [v1.0.0]", "tag of an image", p.RunsWith, imageTag.MatchString)
	each("tables", "tables: [public.posts]", "table", p.Tables, isName)
	return problems
}

// isName reports whether a text can be a PostgreSQL identifier.
func isName(text string) bool {
	return strings.TrimSpace(text) != "" && !strings.ContainsAny(text, "\x00\r\n")
}

func (p *schemaRollbackParams) checkCommand(bad func(key, try, problem string, args ...any)) {
	if p.Flyway != nil && len(p.Command) > 0 {
		bad("command", "remove one of them", "flyway and command are both given")
	}
	if len(p.Command) > 0 && (!filepath.IsAbs(p.Command[0]) && p.Dir == "" || p.Command[0] == "") {
		bad("command", "command: [./rollback_to_v1.sh] with dir:, or an absolute path", "%q has no folder", p.Command[0])
	}
	if p.Dir != "" && !filepath.IsAbs(p.Dir) {
		bad("dir", "dir: /srv/social-intel/db/migrations", "%q is not an absolute path", p.Dir)
	}
	if p.Dir != "" && len(p.Command) == 0 {
		bad("dir", "command: [./rollback_to_v1.sh]", "there is no command to run in it")
	}
	if p.Wanted != "" && len(p.Command) == 0 {
		bad("wanted", "leave it out", "it checks whether a command has finished its work, but there is no command")
	}
}

func (schemaRollback) Target(pb *alerts.Playbook, _ any) string { return "schema:" + pb.Service }

// Loses implements remediation.Losing.
func (k schemaRollback) Loses(pb *alerts.Playbook, params any) string {
	p := params.(*schemaRollbackParams)
	back := "what the command " + strings.Join(p.Command, " ") + " removes"
	if p.Flyway != nil {
		back = "what only the schema after version " + p.Flyway.Version + " can hold, since " + pb.Release.Version + " began"
	}
	where := ""
	if k.snapshots != "" {
		where = " in " + k.snapshots
	}
	return back + "; a snapshot of the whole database is taken first" + where + ", and backout never restores it by itself"
}

func (k schemaRollback) Bind(pb *alerts.Playbook, params any) (remediation.Action, error) {
	p := params.(*schemaRollbackParams)
	if k.schemas == nil {
		return nil, notBuilt(k.Name())
	}
	s := remediation.SchemaRollback{
		Service: pb.Service, Version: pb.Release.Previous, DSNFile: p.DSNFile, Roles: p.ApplicationRoles,
		Command: p.Command, Dir: p.Dir, Wanted: p.Wanted, Restartable: p.Restartable, Tables: p.Tables,
		LockTimeout: time.Duration(p.LockTimeout), StatementTimeout: time.Duration(p.StatementTimeout),
	}
	if f := p.Flyway; f != nil {
		s.Flyway = &remediation.Flyway{Dir: f.Dir, Version: f.Version}
		s.DSNFile = cmp.Or(p.DSNFile, f.DSNFile)
	}
	versions := p.RunsWith
	if len(versions) == 0 {
		versions = []string{pb.Release.Previous}
	}
	s.Tolerated = func(ctx context.Context) error { return k.tolerated(ctx, pb.Target, versions) }
	return k.schemas.Rollback(s)
}

// tolerated checks that one of the versions is what runs, or would start. The error is a
// *remediation.VersionError only where each answer was seen.
func (k schemaRollback) tolerated(ctx context.Context, target alerts.Target, versions []string) error {
	if k.images == nil {
		return errors.New("the running version is unknown")
	}
	var why []string
	for _, v := range versions {
		err := k.images.Runs(ctx, target, "", v)
		if err == nil {
			return nil
		}
		var seen *remediation.VersionError
		if !errors.As(err, &seen) {
			return fmt.Errorf("check that version %s runs: %w", v, err)
		}
		message, _ := hint.Of(err)
		why = append(why, message)
	}
	return &remediation.VersionError{
		Versions: versions,
		Err:      hint.Add(errors.New(strings.Join(why, "; ")), "image_retag before schema_rollback, or runs_with: with the version that runs"),
	}
}
