package audit

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
	// KindLease: a replica has taken a realm over, or given it up.
	KindLease Kind = "lease"
	// KindLateOutcome is what a replica that had lost its realm still knew: it changes
	// nothing.
	KindLateOutcome Kind = "late_outcome"
	// KindCheckpoint begins a log that was pruned: see Chain. backout prunes nothing yet.
	KindCheckpoint Kind = "checkpoint"
	KindStarted    Kind = "started"
)

// Kinds are all kinds of audit entries, in the order in which people ask for them.
func Kinds() []Kind {
	return []Kind{
		KindOpened, KindAttached, KindReopened, KindPlanned, KindHeld, KindApproved, KindDenied, KindIntent, KindOutcome, KindInDoubt,
		KindVerified, KindSettled, KindEscalated, KindRecovered, KindResolved, KindClosed, KindClaimed, KindReleased, KindRestored,
		KindFrozen, KindThawed, KindSignal, KindStage, KindNotified, KindDrift, KindBlind, KindLease, KindLateOutcome, KindReceived, KindDuplicate,
		KindCheckpoint, KindStarted,
	}
}
