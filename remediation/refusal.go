package remediation

import (
	"fmt"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
)

// RefusedError is a request that cannot be fulfilled. Refusal decides the API's status.
type RefusedError struct {
	Refusal Refusal
	Message string
}

// Error implements error.
func (e *RefusedError) Error() string { return e.Message }

// Refusal is why a request was refused.
type Refusal int

// The refusals: the request is wrong (400), what it names does not exist
// (404), its state forbids it (409).
const (
	Invalid Refusal = iota + 1
	Missing
	Conflict
)

// Refuse returns a RefusedError.
func Refuse(r Refusal, format string, args ...any) error {
	return &RefusedError{Refusal: r, Message: fmt.Sprintf(format, args...)}
}

// NoIncident refuses an id that no incident has.
func NoIncident(id string) error {
	return hint.Add(Refuse(Missing, "there is no incident %s", id), "an id that backout incident list shows, such as inc-1")
}

// OneOf says which name may have been meant, or which there are.
func OneOf(word string, known []string) string {
	return strings.TrimPrefix(alerts.OneOf(word, known), "write ")
}

// Describe says an incident's state in a few words.
func (inc *Incident) Describe() string {
	if inc.Reason == "" {
		return string(inc.State)
	}
	return fmt.Sprintf("%s (%s)", inc.State, inc.Reason)
}
