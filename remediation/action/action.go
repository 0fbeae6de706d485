// Package action holds the kinds of actions that a playbook's steps can name.
//
// A kind is one file here and one line in Kinds. The file owns the parameters'
// type and their check, the target's name and, where the kind is built, what it
// does; what needs an outside system is behind a small interface in the same file.
package action

import (
	"fmt"

	"github.com/locotoki/backout/remediation"
)

// Tools are the clients that the kinds use.
type Tools struct {
	Flags Flags
	// LaunchDarkly may be nil: then a step on a flag in LaunchDarkly is not bound.
	LaunchDarkly Flags
	// Unleash may be nil, as LaunchDarkly may.
	Unleash Flags
	Images  Images
	Schemas Schemas
	// SnapshotDir is where Schemas keeps snapshots, for people to read.
	SnapshotDir string
}

// Kinds returns all kinds.
func Kinds(t Tools) []remediation.ActionKind {
	return []remediation.ActionKind{
		statusPage{},
		flagOff{t.Flags, t.LaunchDarkly, t.Unleash},
		imageRetag{t.Images},
		schemaRollback{t.Schemas, t.Images, t.SnapshotDir},
	}
}

// notBuilt is why a kind cannot be bound in this version.
func notBuilt(name string) error {
	return fmt.Errorf("%s is not part of this build: a playbook may contain it, but it does not run", name)
}
