package action

import (
	"fmt"
	"path/filepath"
	"regexp"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// Schemas takes a database's schema back; remediation/postgres does it.
type Schemas interface {
	// Rollback looks at nothing outside.
	Rollback(s remediation.SchemaRollback) (remediation.Action, error)
}

// schemaRollback undoes a database's migrations: by Flyway's undo scripts, or by
// a command that the playbook names.
type schemaRollback struct {
	schemas Schemas
	images  Images
}

type schemaRollbackParams struct {
	Flyway  *flywayParams `yaml:"flyway"`
	Command []string      `yaml:"command"` // argv; no shell reads it
	// Dir is where the command runs; an absolute path.
	Dir string `yaml:"dir"`
	// LockTimeout and StatementTimeout bound the database's waits.
	LockTimeout      model.Duration `yaml:"lock_timeout"`
	StatementTimeout model.Duration `yaml:"statement_timeout"`
}

// flywayParams says where the scripts are, and to which version to go back.
type flywayParams struct {
	Dir     string `yaml:"dir"`
	Version string `yaml:"version"`
	// DSNFile holds the database's address with its password.
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
	if p.Flyway != nil && len(p.Command) > 0 {
		bad("command", "leave one of them out", "flyway and command are both given")
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
	if f := p.Flyway; f != nil {
		if !filepath.IsAbs(f.Dir) {
			bad("flyway.dir", "dir: /srv/social-intel/db/migrations", "%q is not an absolute path", f.Dir)
		}
		if !flywayVersion.MatchString(f.Version) {
			bad("flyway.version", "version: 1.0.0", "%q is not a version", f.Version)
		}
		if !filepath.IsAbs(f.DSNFile) {
			bad("flyway.dsn_file", "dsn_file: /etc/backout/database.dsn", "%q is not an absolute path", f.DSNFile)
		}
	}
	return problems
}

func (schemaRollback) Target(pb *alerts.Playbook, _ any) string { return "schema:" + pb.Service }

func (k schemaRollback) Bind(*alerts.Playbook, any) (remediation.Action, error) {
	return nil, notBuilt(k.Name())
}
