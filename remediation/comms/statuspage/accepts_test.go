package statuspage

import (
	"strings"
	"testing"
)

func TestAPageThatWouldTakeAMessageAcceptsAndIsToldNothing(t *testing.T) {
	x := begin(t, "API")
	if err := x.page.Accepts(t.Context()); err != nil {
		t.Errorf("%v", err)
	}
	x.shows("", "operational")
	if err := x.withKey("another").Accepts(t.Context()); err == nil || !strings.Contains(err.Error(), "try: put another key") {
		t.Errorf("with another key: %v", err)
	}
}
