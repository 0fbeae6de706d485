package docker

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// docker compose up -d --scale web=3 in another folder of the same project: the engine is a fake one.
func TestWatchTellsOfAReplicaThatWasStartedFromAnotherFolder(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	labels := func(id string) map[string]string {
		folder := map[string]string{"web-3": "/srv/releases/42", "web-4": "/srv/releases/42", "other-1": "/srv/staging"}[id]
		if folder == "" {
			folder = dir
		}
		project := "shop"
		if id == "other-1" {
			project = "staging"
		}
		return map[string]string{compose.LabelProject: project, compose.LabelService: "web", compose.LabelWorkingDir: folder}
	}
	for name, there := range map[string][]string{"some run": {"web-1", "web-3"}, "none runs": {}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				events, started := io.Pipe()
				answer := func(r *http.Request, body any) (*http.Response, error) {
					raw, err := json.Marshal(body)
					return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: r, Body: io.NopCloser(strings.NewReader(string(raw)))}, err
				}
				c, err := newClient(Options{Host: "tcp://engine:2375", Projects: []string{dir}, Logger: slog.New(slog.DiscardHandler)}, func(http.RoundTripper) http.RoundTripper {
					return roundTripper(func(r *http.Request) (*http.Response, error) {
						switch {
						case strings.HasSuffix(r.URL.Path, "/events"):
							return &http.Response{StatusCode: http.StatusOK, Request: r, Body: events}, nil
						case strings.HasSuffix(r.URL.Path, "/containers/json"):
							list := []any{}
							for _, id := range there {
								list = append(list, map[string]any{"Id": id, "Labels": labels(id)})
							}
							return answer(r, list)
						case strings.Contains(r.URL.Path, "/containers/"):
							id := path.Base(path.Dir(r.URL.Path))
							return answer(r, map[string]any{"Id": id + "-0123456789abcdef", "Name": "/" + id, "State": map[string]any{"Status": "running", "Running": true},
								"Config": map[string]any{"Labels": labels(id), "Env": []string{map[bool]string{true: "FLAG=0", false: "FLAG=1"}[id == "web-1"]}}})
						}
						return answer(r, nil) // ping
					})
				})
				if err != nil {
					t.Fatal(err)
				}
				a, err := c.FlagOff(alerts.Target{Compose: alerts.ComposeTarget{ProjectDir: dir, Service: "web"}}, alerts.Flag{Name: "FLAG", Off: "0"})
				if err != nil {
					t.Fatal(err)
				}
				var told []string
				ended := make(chan error, 1)
				go func() {
					ended <- a.(remediation.Watcher).Watch(t.Context(), func(what string) { told = append(told, what) })
				}()
				begins := json.NewEncoder(started)
				for _, id := range []string{"other-1", "web-1", "web-4"} {
					if err := begins.Encode(map[string]any{"Actor": map[string]any{"ID": id, "Attributes": labels(id)}}); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				want := "web-4"
				if len(there) > 0 {
					want = "web-3 web-4"
				}
				var names []string
				for _, what := range told {
					name, rest, _ := strings.Cut(strings.TrimPrefix(what, "container "), " ")
					names = append(names, name)
					if !strings.HasSuffix(rest, "runs with FLAG=1, and was started from /srv/releases/42") {
						t.Error(what)
					}
				}
				if got := strings.Join(names, " "); got != want {
					t.Errorf("told of %q, want %q", got, want)
				}
				if err := started.CloseWithError(io.ErrUnexpectedEOF); err != nil {
					t.Error(err)
				}
				if err := <-ended; err == nil {
					t.Error("the watch ended without a word")
				}
			})
		})
	}
}
