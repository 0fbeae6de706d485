package main

import (
	"bytes"
	"context"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// The public hears of no service that is not there.
func TestThePublicPageIsOffUntilAGivenPlaybookNamesComponents(t *testing.T) {
	named := regexp.MustCompile(`msg="the public status page is [^"]*" address=(\S+)`)
	for name, c := range map[string]struct {
		args   []string
		words  string
		status int
	}{
		"the built-in example": {nil, "is off: it answers 404 until a playbook that you give names components", http.StatusNotFound},
		"no components":        {[]string{"--playbook.file=../../testdata/playbooks/examples/shop.yaml"}, "is off: it answers 404", http.StatusNotFound},
		"components":           {[]string{"--playbook.file=../../alerts/playbook.yaml"}, `is served"`, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			stderr := printed{words: "backout is ready"}
			got, once := 0, sync.Once{}
			stderr.stop = func() {
				m := named.FindStringSubmatch(stderr.text.String())
				once.Do(func() {
					go func() { // serve waits for its log
						defer cancel()
						if m == nil {
							return
						}
						r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m[1]+"/status", http.NoBody)
						if err != nil {
							t.Error(err)
							return
						}
						answer, err := new(http.Client).Do(r)
						if err != nil {
							t.Error(err)
							return
						}
						got = answer.StatusCode
						if err := answer.Body.Close(); err != nil {
							t.Error(err)
						}
					}()
				})
			}
			args := append([]string{"serve", "--storage.dsn=sqlite:" + filepath.Join(t.TempDir(), "b.db"), "--web.listen-address=127.0.0.1:0", "--web.status-listen-address=127.0.0.1:0"}, c.args...)
			status := newCommands(nil, &bytes.Buffer{}, &stderr).exec(ctx, args)
			if text := stderr.text.String(); status != statusFine || got != c.status || !strings.Contains(text, c.words) {
				t.Errorf("serve ends with %d, the page answers %d, the log says\n%s", status, got, text)
			}
		})
	}
}
