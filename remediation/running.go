package remediation

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
)

// Runtime says what a playbook's service runs at the moment.
type Runtime interface {
	// Running looks at the service; it has no effect and takes a few seconds at
	// most. What cannot be seen of it is left empty; the error says why nothing
	// could be seen.
	Running(ctx context.Context, pb *alerts.Playbook) (Running, error)
}

// Running is what a service ran when it was inspected.
type Running struct {
	Seen time.Time `json:"seen"`
	// Up counts the replicas that run and are not unhealthy, Total those that there are to be, or Up where a rollout has
	// more of them up.
	Up    int `json:"up"`
	Total int `json:"total"`
	// Image is the image's name as the replicas were made from it, Version the
	// version that they name, or the tag where they name none. Each is "" where it
	// is not known or where two replicas differ.
	Image   string `json:"image,omitempty"`
	Version string `json:"version,omitempty"`
	// Flags are the playbook's flags, in its order. A flag that nobody names is
	// left out.
	Flags []RunningFlag `json:"flags,omitempty"`
	// Replicas are the single ones, by name.
	Replicas []RunningReplica `json:"replicas,omitempty"`
}

// RunningFlag is one flag's value.
type RunningFlag struct {
	Name string `json:"name"`
	// Value is "" where two replicas differ.
	Value string `json:"value"`
	// Served is true where the service itself named the value, and false where it
	// is what its containers were started with.
	Served bool `json:"served"`
	// Differs is true where two replicas have different values.
	Differs bool `json:"differs,omitempty"`
}

// RunningReplica is one replica of a service.
type RunningReplica struct {
	Name string `json:"name"`
	// State is the engine's word: running, exited, paused, restarting, created,
	// dead; or unhealthy, where it runs and its own healthcheck fails.
	State   string `json:"state"`
	Up      bool   `json:"up"`
	Image   string `json:"image"`
	Version string `json:"version,omitempty"`
}

// String says it on one line: "v3.3.2 on 2 of 2, NEW_PRICING=false".
func (r Running) String() string {
	if r.Total == 0 {
		return "nothing"
	}
	what := r.Version
	if what == "" {
		what = r.Image
	}
	if what == "" {
		what = "different versions"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s on %d of %d", what, r.Up, r.Total)
	for _, f := range r.Flags {
		if f.Differs {
			fmt.Fprintf(&b, ", %s differs", f.Name)
		} else {
			fmt.Fprintf(&b, ", %s=%s", f.Name, f.Value)
		}
	}
	return b.String()
}
