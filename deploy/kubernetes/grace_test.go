package kubernetes_test

import (
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/ledger"
)

func TestAPodThatIsStoppedHasTheTimeToEndItsStep(t *testing.T) {
	limit := func(r alerts.Risk) time.Duration { return ledger.StepLimit(&remediation.Step{Risk: r}) }
	for _, c := range []struct {
		file, seconds string
		risks         []alerts.Risk
	}{
		{"backout.yaml", `\n *terminationGracePeriodSeconds: (\d+)\n`, []alerts.Risk{alerts.Reversible, alerts.Disruptive}},
		{"backout.yaml", `# schema_rollback in a playbook, patch this to (\d+) `, []alerts.Risk{alerts.Lossy}},
		{"../backout.service", `\nTimeoutStopSec=(\d+)\n`, []alerts.Risk{alerts.Reversible, alerts.Disruptive}},
		{"../../docs/install.md", "`terminationGracePeriodSeconds: (\\d+)`", []alerts.Risk{alerts.Lossy}},
		{"../../docs/install.md", `{terminationGracePeriodSeconds: (\d+)}`, []alerts.Risk{alerts.Lossy}},
		{"../../docs/replicas.md", "`TimeoutStopSec=(\\d+)`", []alerts.Risk{alerts.Lossy}},
	} {
		raw, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(c.seconds).FindSubmatch(raw)
		if found == nil {
			t.Errorf("%s does not say %s", c.file, c.seconds)
			continue
		}
		n, err := strconv.Atoi(string(found[1]))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range c.risks {
			if grace := time.Duration(n) * time.Second; grace < limit(r)+10*time.Second { // and its outcome is written
				t.Errorf("%s: %v (%s) is not enough for a %v step, which may take %v", c.file, grace, c.seconds, r, limit(r))
			}
		}
	}
}
