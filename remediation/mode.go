package remediation

// Mode says whether the engine may act.
type Mode string

// The modes: Observe holds every step with reason mode, Act does not.
const (
	Observe Mode = "observe"
	Act     Mode = "act"
)

// Reloaded is what the audit log has of a reload.
type Reloaded struct {
	// Actor is the name of the token that asked for it, "" for a signal of the
	// operating system.
	Actor string
	// Changed says what changed apart from the playbooks, without any secret.
	Changed []string
}

// What backout can be blind for.
const (
	BlindWatchdog   = "watchdog"
	BlindPrometheus = "prometheus"
)

// The actors of entries that no human made.
const (
	ActorEngine       = "engine"
	ActorAlertmanager = "alertmanager"
)
