package remediation

import (
	"fmt"
	"time"
)

// Arrivals is what came from Alertmanager since this process began to listen.
type Arrivals struct {
	Since time.Time `json:"since"`
	// Accepted: a notification was committed.
	Accepted bool `json:"accepted"`
	// Refused are the notifications since the last accepted one that came without a token
	// which may post them; nil where there is none.
	Refused *RefusedArrivals `json:"refused"`
}

// RefusedArrivals are notifications that were refused for their token.
type RefusedArrivals struct {
	Count int       `json:"count"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// From is the address that the last one came from, Result what the metric
	// backout_notifications_total calls it.
	From   string `json:"from"`
	Result string `json:"result"`
}

// Words say what was refused, and since when.
func (r RefusedArrivals) Words() string {
	if r.Count == 1 {
		return fmt.Sprintf("1 notification was refused (%s) at %s, from %s", r.Result, Moment(r.First), r.From)
	}
	return fmt.Sprintf("%s were refused (%s) since %s, the last from %s", Counted(r.Count, "notification"), r.Result, Moment(r.First), r.From)
}

// What to do where no alert arrives.
const (
	// HintToken is what to do about refused notifications, HintSilent where nothing comes.
	HintToken  = "put the token of --config.file that has the role alertmanager into the file that Alertmanager's credentials_file names"
	HintSilent = "check that Alertmanager's configuration posts to this backout and that the file of its credentials_file exists; Alertmanager's log has the errors"
)
