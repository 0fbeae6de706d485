package remediation

import (
	"errors"
	"time"

	"github.com/locotoki/backout/alerts"
)

func parsePlaybook(string, []byte, []alerts.ActionKind) (*alerts.Playbook, error) { return nil, errors.New("wip") }
func expandQuery(_ *alerts.Playbook, q string, _ time.Duration, _ float64) string    { return q }
