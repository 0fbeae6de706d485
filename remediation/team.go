package remediation

import (
	"time"

	"github.com/locotoki/backout/remediation/audit"
)

// TeamLine is one event, as the audit log has it.
type TeamLine struct {
	Kind  audit.Kind `json:"kind"`
	Time  time.Time  `json:"time"`
	Actor string     `json:"actor"`
	// Title says what happened, Why the reason; Tone is that of TimelineEvent.
	Title string `json:"title"`
	Tone  string `json:"tone,omitempty"`
	Why   string `json:"why,omitempty"`
	// Seq and Hash are the entry's: told to people, they show a log that was cut off.
	Seq  int64  `json:"seq"`
	Hash string `json:"hash"`
}
