package remediation

import (
	"context"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
)

// ComposePrefix begins the name of every ComposeTarget.
const ComposePrefix = "compose:"

// ComposeTarget names a part of a compose service, such as a flag's variable or
// "image", for an ActionKind's Target. What changes a service's containers names its
// target so: one change of them at a time is in progress, whichever part it is of.
func ComposeTarget(t alerts.ComposeTarget, part string) string {
	name := ComposePrefix + strings.TrimRight(t.ProjectDir, "/") + "/" + t.Service
	if t.Project != "" {
		name += "@" + t.Project
	}
	return name + ":" + part
}

// KubernetesPrefix begins the name of every target in Kubernetes.
const KubernetesPrefix = "kubernetes:"

// SwarmPrefix begins the name of every target in a Docker Swarm.
const SwarmPrefix = "swarm:"

// TargetName names a part of a playbook's service, such as a flag's variable or "image",
// wherever the service runs.
func TargetName(t alerts.Target, part string) string {
	k := t.Kubernetes
	switch {
	case t.Swarm != nil:
		return SwarmPrefix + t.Swarm.Service + ":" + part
	case k == nil:
		return ComposeTarget(t.Compose, part)
	}
	name := KubernetesPrefix
	if k.Context != "" {
		name += k.Context + "/"
	}
	return name + k.Namespace + "/" + k.Kind() + "/" + k.Name() + ":" + part
}

// Check is one check of a running service, and its result.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// SchemaRollback says how a database's schema is rolled back to its previous version.
type SchemaRollback struct {
	Service string
	// Version is what the code goes back to, such as v1.0.0; a command is told.
	Version string
	// DSNFile holds the database's address with its password; an absolute path.
	DSNFile string
	// Roles are the application's: they cannot log in while the schema changes.
	Roles []string
	// Flyway or Command: one of them is set.
	Flyway *Flyway
	// Command is an argument list; no shell reads it. It runs in Dir.
	Command []string
	Dir     string
	// Wanted is a query of one boolean: true once the command has done its work.
	Wanted string
	// Restartable: a command or a script that runs outside of a transaction may be
	// run again after a crash. Otherwise, where it left its mark, a person decides.
	Restartable bool
	// Tables are those whose rows are counted, and that nobody else may write to after the
	// snapshot began; none: all.
	Tables []string
	// LockTimeout and StatementTimeout bound the database's waits.
	LockTimeout, StatementTimeout time.Duration
	// Tolerated asks whether the code that runs now tolerates the older schema;
	// an error says why not, and nothing is changed. It is a *VersionError where it was
	// seen that the code does not.
	Tolerated func(ctx context.Context) error
}

// Flyway says where versioned and undo scripts are, and to which version the
// schema goes back.
type Flyway struct {
	Dir     string
	Version string
}
