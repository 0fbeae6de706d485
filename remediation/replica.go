package remediation

import (
	"slices"
	"time"
)

// RealmDefault is the realm of what names none; a playbook whose target names a host is
// in RealmOfHost's. What one channel delivers is RealmOfChannel's.
const RealmDefault = ""

// RealmOfHost is the realm of the targets on one host: a replica there acts on them.
func RealmOfHost(host string) string {
	if host == "" {
		return RealmDefault
	}
	return "host:" + host
}

// RealmOfChannel is the realm of a channel's messages: a replica that has it delivers them.
func RealmOfChannel(channel string) string { return "channel:" + channel }

// Replica is one run of a process that shares the store with others, as it last
// described itself. A store that only one process can write has none.
type Replica struct {
	// ID is of this run alone: a process that starts again has another one.
	ID string `json:"id"`
	// Name is what people call it, such as its host's name.
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Mode    Mode      `json:"mode"`
	Started time.Time `json:"started"`
	// Seen is when it last wrote this row, Until how long it is taken to be alive.
	Seen  time.Time `json:"seen"`
	Until time.Time `json:"until"`
	// Lease is the length of its leases, 0 in a row that an older version wrote.
	Lease time.Duration `json:"lease,omitempty"`
	// Playbooks are the hashes of those it has loaded, by service.
	Playbooks map[string]string `json:"playbooks"`
	// Realms are those in which it can act.
	Realms []string `json:"realms,omitempty"`
	// Channels are those by which it can deliver messages.
	Channels []string `json:"channels"`
	// Answered is when Prometheus last answered it, zero where it never did; Why is what
	// came instead since.
	Answered time.Time `json:"answered"`
	Why      string    `json:"why,omitempty"`
}

// Live reports whether the replica is taken to be alive.
func (r Replica) Live(now time.Time) bool { return r.Until.After(now) }

// Lease says which replica acts in a realm, and until when unless it is renewed.
type Lease struct {
	Realm string `json:"realm"`
	// Holder is a Replica.ID.
	Holder string `json:"holder"`
	// Epoch counts those who have held it, from 1: what an earlier one still tries to
	// write is refused.
	Epoch int64     `json:"epoch"`
	Until time.Time `json:"until"`
}

// ReplicaTable holds the processes that share the store, and who acts in which realm.
type ReplicaTable interface {
	// Now is the store's own clock, the same for all that share it. Leases go by it, and
	// by no clock of a process.
	Now() (time.Time, error)
	// Replicas returns all, by ID.
	Replicas() ([]Replica, error)
	PutReplica(r Replica) error // by ID
	DeleteReplica(id string) error
	// Lease returns a realm's, or ErrNotFound.
	Lease(realm string) (Lease, error)
	// Leases returns all, by realm.
	Leases() ([]Lease, error)
	PutLease(l Lease) error // by Realm
}

// KeptTable holds small values that all replicas share.
type KeptTable interface {
	// Kept returns what PutKept kept under a name, or ErrNotFound.
	Kept(name string) ([]byte, error)
	PutKept(name string, value []byte) error
	// Once reports whether a key comes for the first time, and remembers it until a
	// moment of the store's clock; at most limit keys of a kind are remembered at a time,
	// and one more is ErrFull. Those that lie further ahead than twice the time until then
	// are forgotten.
	Once(kind, key string, until time.Time, limit int) (first bool, err error)
}

// LiveReplicas returns the replicas that are taken to be alive, by name.
func LiveReplicas(tx Tx, now time.Time) ([]Replica, error) {
	all, err := tx.Replicas()
	live := slices.DeleteFunc(all, func(r Replica) bool { return !r.Live(now) })
	slices.SortStableFunc(live, func(a, b Replica) int {
		if a.Name < b.Name {
			return -1
		}
		if a.Name > b.Name {
			return 1
		}
		return 0
	})
	return live, err
}
