package launchdarkly

import (
	"net/http"
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
)

// A look needs no permission: preflight asks for it.
func TestATokenThatOnlyReadsDoesNotPass(t *testing.T) {
	for name, c := range map[string]struct {
		own    map[string]any
		status remediation.Status
		says   string
	}{
		"a writer":                  {map[string]any{"role": "writer"}, remediation.Pass, "; the token is a writer's"},
		"a reader":                  {map[string]any{"role": "reader"}, remediation.Fail, "role is reader"},
		"a custom role":             {map[string]any{"role": "reader", "customRoleIds": []string{"a"}}, remediation.CannotTell, "does not say whether"},
		"a policy of its own":       {map[string]any{"role": "writer", "inlineRole": []any{map[string]any{}}}, remediation.CannotTell, "does not say whether"},
		"one that may not see that": {nil, remediation.CannotTell, "does not say whether"},
	} {
		f := newFake(t)
		f.own = c.own
		r := remediation.LookCheck(t.Context(), f.action(http.DefaultTransport))
		if r.Status != c.status || !strings.Contains(r.Evidence, c.says) || (r.Next == "") != (c.status == remediation.Pass) || f.patches() > 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
}
