package remediation

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/locotoki/backout/alerts"
)

// ActionKind is one kind of action: one file in remediation/action.
type ActionKind interface {
	alerts.ActionKind
	// Bind returns the action for one step of one playbook. It looks at
	// nothing outside; an error means that the step can never run (a kind that
	// is not built, say) and holds it with reason target.
	Bind(pb *alerts.Playbook, params any) (Action, error)
	// Target names what the step changes, such as
	// "compose:/srv/social-intel/social-intel:FEATURE_ANALYTICS_ENABLED"; limits and
	// cooldown count by it. Never empty, never a wildcard; of the playbook's service it
	// is a TargetName.
	Target(pb *alerts.Playbook, params any) string
}

// Action changes one target to one wanted state. It must be safe to call
// again after any crash: every method begins by looking.
type Action interface {
	// Look tells how the target stands, without any effect. op is the
	// operation's id (incident and step); it tells our own half-way state from
	// someone else's. The error says why the target cannot be acted on.
	Look(ctx context.Context, op string) (Look, error)
	// Apply makes the target as wanted, from Untouched or HalfWay; before is
	// the snapshot that the intent recorded. An error wrapped by InDoubt means
	// that the effect may or may not have happened.
	Apply(ctx context.Context, op string, before json.RawMessage) error
	// Verify waits until the target is seen to work as wanted, or says why not: then it is
	// undone. An error that IsInDoubt means that nothing was seen: it is verified again.
	Verify(ctx context.Context, op string) error
	// Undo puts back what before holds, from any state that Apply left.
	Undo(ctx context.Context, op string, before json.RawMessage) error
}

// Restorer is an Action whose Undo after a failure leaves alone what is safer as it
// is, such as a flag that stays off for a service that was down. A person's restore
// puts it back all the same.
type Restorer interface {
	Action
	// Restore puts back all that before holds.
	Restore(ctx context.Context, op string, before json.RawMessage) error
}

// Position is a target's state relative to what an action wants.
type Position string

// The three positions.
const (
	// Wanted: already as wanted; nothing is to be done.
	Wanted Position = "wanted"
	// Untouched: our operation left no trace on it.
	Untouched Position = "untouched"
	// HalfWay: our operation was cut off in the middle.
	HalfWay Position = "half_way"
)

// Look is what an action saw of its target. Snapshot goes into the audit log:
// integers, strings, arrays and objects only, no secret, and enough for Undo.
type Look struct {
	Position Position
	Snapshot json.RawMessage
}

// Communicator marks a kind whose steps tell people something and change no
// production: no gate, no settling and no failure of such a step holds the plan.
type Communicator interface {
	ActionKind
	Communicates()
	// Announce says what one step of one playbook tells the public.
	Announce(pb *alerts.Playbook, params any) Announcement
}

// Losing is a kind whose steps can lose data.
type Losing interface {
	ActionKind
	// Loses says what one step of one playbook can lose, and what is kept of it.
	Loses(pb *alerts.Playbook, params any) string
}

// VersionSetter is a kind whose steps leave a version of the service running.
type VersionSetter interface {
	ActionKind
	// Version is the one that one step of one playbook leaves running.
	Version(pb *alerts.Playbook, params any) string
}

// VersionError says that none of Versions runs: that was seen, while an error of another
// type says only that nobody could see it. A step that comes before and leaves one of them
// running takes it away.
type VersionError struct {
	Versions []string
	Err      error
}

func (e *VersionError) Error() string { return e.Err.Error() }

// Unwrap returns the error that says what runs.
func (e *VersionError) Unwrap() error { return e.Err }

// Watcher is an Action whose target is watched once it is in the wanted state.
type Watcher interface {
	Action
	// Watch reports what takes the target away from what was wanted, until ctx
	// ends (nil) or the watch does (an error: it is begun again). It changes
	// nothing: what someone turned back on is told, not fought.
	Watch(ctx context.Context, report func(what string)) error
}

// InDoubt marks an error after which the effect may or may not have happened.
func InDoubt(err error) error { return &inDoubtError{err} }

type inDoubtError struct{ error }

func (e *inDoubtError) Unwrap() error { return e.error }

// MarkedInDoubt reports an error that InDoubt has marked.
func MarkedInDoubt(err error) bool {
	var d *inDoubtError
	return errors.As(err, &d)
}

// IsInDoubt also counts a deadline: what it cut off may have been done.
func IsInDoubt(err error) bool {
	return MarkedInDoubt(err) || errors.Is(err, context.DeadlineExceeded)
}

// Unfit marks why no step may begin on a target as it is; nil stays nil. It says nothing against finishing a step
// that has begun, or undoing one.
func Unfit(err error) error {
	if err == nil {
		return nil
	}
	return &unfitError{err}
}

type unfitError struct{ error }

func (e *unfitError) Unwrap() error { return e.error }

// IsUnfit reports an error that Unfit has marked.
func IsUnfit(err error) bool {
	var u *unfitError
	return errors.As(err, &u)
}
