package remediation

import (
	"time"
)

// Kind is what an audit entry records.
type Kind string

// The kinds of audit entries.
const (
	KindReceived  Kind = "received"
	KindDuplicate Kind = "duplicate"
	KindOpened    Kind = "opened"
	KindAttached  Kind = "attached"
	KindPlanned   Kind = "planned"
	KindHeld      Kind = "held"
	KindApproved  Kind = "approved"
	KindDenied    Kind = "denied"
	KindIntent    Kind = "intent"
	KindOutcome   Kind = "outcome"
	KindInDoubt   Kind = "in_doubt"
	KindVerified  Kind = "verified"
	KindSettled   Kind = "settled"
	KindEscalated Kind = "escalated"
	KindRecovered Kind = "recovered"
	KindResolved  Kind = "resolved"
	KindClosed    Kind = "closed"
	KindReopened  Kind = "reopened"
	KindClaimed   Kind = "claimed"
	KindReleased  Kind = "released"
	KindRestored  Kind = "restored"
	KindFrozen    Kind = "frozen"
	KindThawed    Kind = "thawed"
	KindSignal    Kind = "signal"
	KindStage     Kind = "stage"
	KindNotified  Kind = "notified"
	KindDrift     Kind = "drift"
	KindBlind     Kind = "blind"
	// KindCheckpoint begins a log that was pruned: see Chain. backout prunes nothing yet.
	KindCheckpoint Kind = "checkpoint"
	KindStarted    Kind = "started"
)

// Kinds are all kinds of audit entries, in the order in which people ask for them.
func Kinds() []Kind {
	return []Kind{
		KindOpened, KindAttached, KindReopened, KindPlanned, KindHeld, KindApproved, KindDenied, KindIntent, KindOutcome, KindInDoubt,
		KindVerified, KindSettled, KindEscalated, KindRecovered, KindResolved, KindClosed, KindClaimed, KindReleased, KindRestored,
		KindFrozen, KindThawed, KindSignal, KindStage, KindNotified, KindDrift, KindBlind, KindReceived, KindDuplicate,
		KindCheckpoint, KindStarted,
	}
}

// Entry is one entry of the audit log. All keys are always present; a key
// that does not apply is "" (detail: {}).
type Entry struct {
	Seq      int64     `json:"seq"`
	Time     time.Time `json:"time"`
	Kind     Kind      `json:"kind"`
	Actor    string    `json:"actor"`
	Service  string    `json:"service"`
	Incident string    `json:"incident"`
	Step     string    `json:"step"`
	Action   string    `json:"action"`
	// Detail holds strings, integers, booleans, null, arrays and objects with
	// ASCII keys; measured values are decimal strings.
	Detail map[string]any `json:"detail"`
	Prev   string         `json:"prev"`
	Hash   string         `json:"hash"`
	// omitted is how many bytes the entry has, where it is too large to be read.
	omitted int64
}

// MaxEntry is how many bytes of an entry are read. Versions before this one wrote
// larger ones; to read such a one would take many times its bytes.
const MaxEntry = 4 << 20

// PageBytes bounds how many bytes of entries are read at once, for a list or an export.
const PageBytes = 4 << 20

// OmittedEntry stands for a stored entry of more than MaxEntry bytes: all that is
// known of it is what a store keeps beside it. Its content is not checked.
func OmittedEntry(seq int64, kind Kind, service, incident, hash string, size int64) Entry {
	return Entry{Seq: seq, Kind: kind, Service: service, Incident: incident, Hash: hash, omitted: size, Detail: map[string]any{
		"omitted_bytes": size, "why": "this entry is too large to be read, so its content is left out and not checked",
	}}
}

// Omitted reports whether the entry's content was left out.
func (e Entry) Omitted() bool { return e.omitted > 0 }
