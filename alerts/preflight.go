package alerts

import "github.com/prometheus/common/model"

// PreflightChecks are what a preflight checks beyond what the rest of the playbook says.
type PreflightChecks struct {
	// ReplicationLag is how far replicas of the database may be behind. Without it, the
	// database itself is asked where a step knows it, and passes if no replica shows: none is
	// connected, no physical replication slot waits for one, and synchronous_standby_names is
	// empty. Write a query if replicas stream without a slot or only read a WAL archive: the
	// database does not show such a replica while it is away.
	ReplicationLag *ReplicationLag `yaml:"replication_lag,omitempty"`
}

// ReplicationLag is how far replicas of the database may be behind.
type ReplicationLag struct {
	// Query is a PromQL expression that gives the lag in seconds.
	Query string `yaml:"query"`
	// Below is what the lag must be below. Default: 5s.
	Below model.Duration `yaml:"below,omitempty"`
}

func (v *validator) preflight(c *PreflightChecks) {
	if c == nil || c.ReplicationLag == nil {
		return
	}
	const path = "preflight.replication_lag.query"
	if v.need(path, c.ReplicationLag.Query == "", "write an expression that gives seconds, such as max(pg_replication_lag_seconds)") {
		v.expression(path, path, c.ReplicationLag.Query)
		if uses(c.ReplicationLag.Query, windowVariable) {
			v.at(path, path+" holds $window, which only indicators have", "write a fixed range, such as [2m]")
		}
	}
}
