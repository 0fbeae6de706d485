package audit_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation/audit"
)

func TestThePageOfTheAuditLogListsEveryKind(t *testing.T) {
	page, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile(`(?s)\nKinds: (.*?)\.\n`).FindSubmatch(page)
	if list == nil {
		t.Fatal("docs/audit.md has no list of kinds")
	}
	listed := strings.FieldsFunc(string(list[1]), func(r rune) bool { return strings.ContainsRune(", \n", r) })
	var kinds []string
	for _, k := range audit.Kinds() {
		kinds = append(kinds, string(k))
	}
	slices.Sort(listed)
	slices.Sort(kinds)
	if !slices.Equal(listed, kinds) {
		t.Errorf("docs/audit.md lists %q; the kinds are %q", listed, kinds)
	}
}
