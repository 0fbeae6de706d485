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

// Tools are what the kinds act through.
type Tools struct {
	Flags Flags
	// LaunchDarkly may be nil: a step on a flag that it keeps is then not bound.
	LaunchDarkly Flags
	Images       Images
	Schemas      Schemas
}

// Kinds returns every kind there is.
func Kinds(t Tools) []remediation.ActionKind {
	return []remediation.ActionKind{
		statusPage{},
		flagOff{t.Flags, t.LaunchDarkly},
		imageRetag{t.Images},
		schemaRollback{t.Schemas, t.Images},
	}
}

// notBuilt is why a kind cannot be bound in this version.
func notBuilt(name string) error {
	return fmt.Errorf("%s is not built in this version: it can stand in a playbook, but is not carried out", name)
}
