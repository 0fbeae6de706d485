package remediation

import (
	"crypto/x509"
	"fmt"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
)

// A sign-off is for what was seen, and the same may take longer the next time.
func TestASignOffCountsForAsLongAsTheSameIsSeen(t *testing.T) {
	const works = "a test container of image 3adce6b6e27b works with F=0; the fallback behaviour cannot be observed"
	for _, c := range []struct {
		signed, now string
		counts      bool
	}{
		{works, works, true},
		{works, "a test container of image eb765f6b8d9e works with F=0; the fallback behaviour cannot be observed", false},
		{works, "a test container of image 3adce6b6e27b works with F=1; the fallback behaviour cannot be observed", false},
		{"whether a quantile is beyond 0.75 s is a guess; it has buckets of 0.5 s and 1 s", "whether a quantile is beyond 0.75 s is a guess; it has buckets of 0.1 s and 10 s", false},
		{"read tcp 127.0.0.1:40112->127.0.0.1:9093: i/o timeout", "read tcp 127.0.0.1:51998->127.0.0.1:9093: i/o timeout", true},
		{"read tcp 127.0.0.1:40112->127.0.0.1:9093: i/o timeout", "read tcp 127.0.0.1:40112->127.0.0.1:9094: i/o timeout", false},
		{"this Prometheus does not scrape the jobs api-5m itself", "this Prometheus does not scrape the jobs api-1h itself", false},
		{"the buckets are 0.1 0.5", "the buckets are 0.1 0.7", false},
	} {
		b := &alerts.Playbook{Hash: "h", Release: alerts.Release{Version: "2.0"}}
		item := PreflightItem{ID: "flag/F/off", Result: Unknown(c.now, "")}
		p := Preflight{Signatures: []Signature{{Item: item.ID, Release: "2.0", Playbook: "h", Evidence: c.signed}}}
		if got := p.Signed(b, item, "2.0") != nil; got != c.counts {
			t.Errorf("signed: %s\nnow: %s\nit counts: %t", c.signed, c.now, got)
		}
		item.Result, item.ID = item.Because(c.now), "another"
		p.Signatures[0].Cause = c.signed
		if got := p.Signed(b, item, "2.0") != nil; got != c.counts {
			t.Errorf("signed cause: %s\nnow: %s\nit counts: %t", c.signed, c.now, got)
		}
	}
}

// expired is what Go says of a certificate that was valid until 2084, at a time.
func expired(t *testing.T) func(at time.Time) error {
	srv := httptest.NewTLSServer(nil)
	t.Cleanup(srv.Close)
	return func(at time.Time) error {
		_, err := srv.Certificate().Verify(x509.VerifyOptions{CurrentTime: at})
		return fmt.Errorf("tls: failed to verify certificate: %w", err)
	}
}

func TestASignOffCountsForAsLongAsACertificateIsExpired(t *testing.T) {
	says := expired(t)
	at := time.Date(2090, 11, 30, 10, 0, 0, 0, time.UTC)
	b := &alerts.Playbook{Hash: "h", Release: alerts.Release{Version: "2.0"}}
	for name, result := range map[string]func(err error) Result{
		"Prometheus":     func(err error) Result { return ResultOf(fmt.Errorf("prometheus: %w: %w", ErrNoAnswer, err)) },
		"its text alone": func(err error) Result { return ResultOf(fmt.Errorf("%w: %s", ErrNoAnswer, err.Error())) },
		"a dashboard": func(err error) Result {
			return Unknown("it cannot be reached from here: "+err.Error(), "").Because(err.Error())
		},
		"Argo CD": func(err error) Result { return Unknown("look at application argocd/shop: "+err.Error(), "") },
	} {
		was := PreflightItem{ID: "x", Result: result(says(at))}
		p := Preflight{Signatures: []Signature{{Item: "x", Release: "2.0", Playbook: "h", Evidence: was.Evidence, Cause: was.Cause}}}
		for err, counts := range map[error]bool{
			says(at.Add(time.Second)):           true,
			says(at.AddDate(1, 0, 0)):           true,
			says(time.Unix(0, 0)):               false, // not valid yet: backout's clock is wrong
			fmt.Errorf("a reset: %w", says(at)): false,
		} {
			now := PreflightItem{ID: "x", Result: result(err)}
			if got := p.Signed(b, now, "2.0") != nil; got != counts || now.Status != CannotTell {
				t.Errorf("%s\nsigned: %s\nnow: %s\nit counts: %t", name, was.Evidence, now.Evidence, got)
			}
			if same := now.Cause == was.Cause; now.Cause != "" && same != counts {
				t.Errorf("%s: the cause was %q, is %q", name, was.Cause, now.Cause)
			}
		}
	}
}
