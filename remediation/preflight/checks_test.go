package preflight

import (
	"strings"
	"testing"
)

func TestEachRowOfTheTableIsFound(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range checks {
		switch {
		case seen[c.id]:
			t.Errorf("%s is in the table twice", c.id)
		case c.own == nil && (c.each == nil || c.run == nil):
			t.Errorf("%s cannot be run", c.id)
		case c.needs == "" || c.name == "":
			t.Errorf("%s lacks a name or what it needs: %+v", c.id, c)
		case strings.Contains(c.id, "*") && c.own == nil && !strings.Contains(c.name, "*"):
			t.Errorf("%s does not name its subject: %s", c.id, c.name)
		}
		seen[c.id] = true
	}
}
