package statuspage

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation/view"
)

func TestAPageWithoutComponentsPromisesNothing(t *testing.T) {
	if got := overall(view.PublicPage{}); got.Indicator != "none" || strings.Contains(got.Description, "Operational") {
		t.Errorf("%+v", got)
	}
	if got := overall(view.PublicPage{Components: []view.PublicPart{{Name: "API"}}}); got.Description != "All Systems Operational" {
		t.Errorf("%+v", got)
	}
}
