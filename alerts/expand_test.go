package alerts_test

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
)

func TestACommentInAQueryIsLeftOut(t *testing.T) {
	src, err := alerts.Default(kinds())
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(src.Source), `      ) / (sum(increase(si_requests_total{$service}[$window])) >= $min_volume)
    unit: ratio`, `      ) / (sum(increase(si_requests_total{a!="#",b!='\'#',c!=`+"`#`"+`}[$window])) >= $min_volume)  # share in $window
    unit: ratio`, 1)
	pb, err := alerts.Parse("p.yaml", []byte(text), kinds())
	if err != nil {
		t.Fatal(err)
	}
	query := pb.Indicator("error_rate").Query
	if strings.Contains(query, "share in") || !strings.Contains(query, `{a!="#",b!='\'#',c!=`+"`#`"+`}[$window])) >= $min_volume)`) {
		t.Errorf("the query is %s", query)
	}
}
