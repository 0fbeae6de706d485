package fleet

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/client"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
)

// made is a container of a fake engine.
type made struct{ project, name, folder, status, image string }

// theImage is the image that every name stands for.
const theImage = "sha256:0123"

// engineWith is an engine that has containers of the service web.
func engineWith(t *testing.T, projects []string, all ...made) *Engine {
	t.Helper()
	api, err := client.NewClientWithOpts(client.WithHost("http://engine"), client.WithVersion("1.43"), client.WithHTTPClient(&http.Client{
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			var answer any
			var list []any
			for _, m := range all {
				labels := map[string]string{compose.LabelProject: m.project, compose.LabelService: "web", compose.LabelWorkingDir: m.folder}
				list = append(list, map[string]any{"Id": m.name, "Labels": labels})
				if path.Base(path.Dir(r.URL.Path)) == m.name {
					answer = map[string]any{"Id": m.name, "Image": m.image, "Name": "/" + m.name, "HostConfig": map[string]any{},
						"State": map[string]any{"Status": m.status, "Running": m.status == "running"}, "Config": map[string]any{"Labels": labels}}
				}
			}
			if strings.Contains(r.URL.Path, "/images/") {
				answer = map[string]any{"Id": theImage}
			}
			if answer == nil {
				answer = list
			}
			raw, err := json.Marshal(answer)
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: r, Body: io.NopCloser(strings.NewReader(string(raw)))}, err
		}),
	}))
	if err != nil {
		t.Fatal(err)
	}
	return NewEngine(api, "http://engine", projects)
}

// Compose compares the config hash alone: up --scale in another folder leaves the containers that are there, with the label
// of theirs.
func TestReplicasThatWereStartedFromAnotherFolderAreRefused(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	older, newer, link, gone := filepath.Join(root, "41"), filepath.Join(root, "42"), filepath.Join(root, "current"), filepath.Join(root, "40")
	for _, dir := range []string{older, newer} {
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(newer, link); err != nil {
		t.Fatal(err)
	}
	web := func(n, folder string) made { return made{"shop", "shop-web-" + n, folder, "running", theImage} }
	aside := made{"shop", "shop-web-1_backout_old_0123abcd", older, "exited", theImage}
	for name, c := range map[string]struct {
		project string // the playbook's
		dir     string // the playbook's
		all     []made
		seen    []string
		refused string // "": they are not
	}{
		"some from an older folder":         {"", newer, []made{web("1", older), web("2", older), web("3", newer)}, nil, newer + ", " + older},
		"the same, with the project named":  {"shop", newer, []made{web("1", older), web("2", older), web("3", newer)}, nil, newer + ", " + older},
		"one from a folder that is gone":    {"", newer, []made{web("1", gone), web("2", newer)}, nil, newer + ", " + gone},
		"one that ended":                    {"", newer, []made{{"shop", "shop-web-1", older, "exited", theImage}, web("2", newer)}, nil, newer + ", " + older},
		"one without a folder":              {"", newer, []made{web("1", ""), web("2", newer)}, nil, "2 folders"},
		"a link to the folder":              {"", newer, []made{web("1", link), web("2", newer)}, []string{"shop-web-1", "shop-web-2"}, ""},
		"a link as the playbook's folder":   {"", link, []made{web("1", link), web("2", newer)}, []string{"shop-web-1", "shop-web-2"}, ""},
		"another project of another folder": {"", newer, []made{{"staging", "staging-web-1", older, "running", theImage}, web("1", newer)}, []string{"shop-web-1"}, ""},
		"what an operation set aside":       {"", newer, []made{aside, web("1", newer)}, []string{"shop-web-1"}, ""},
		"all from another folder":           {"shop", newer, []made{web("1", older), web("2", older)}, []string{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := engineWith(t, []string{root}, c.all...)
			e.agreed = true
			target := alerts.ComposeTarget{ProjectDir: c.dir, Project: c.project, Service: "web"}
			f, err := e.Whole(t.Context(), target)
			if c.refused != "" {
				for _, word := range []string{c.refused, "service web", "--force-recreate --scale web=", "web in " + newer} {
					if err == nil || !strings.Contains(err.Error(), word) {
						t.Errorf("%v\nsays nothing of %q", err, word)
					}
				}
				if f, err = e.Everywhere(t.Context(), target); err != nil || len(f.Replicas) != len(c.all) {
					t.Errorf("a watch sees %d of %d: %v", len(f.Replicas), len(c.all), err)
				}
				// An operation that has begun goes on, and back, with those of its folder.
				own, err := e.Survey(t.Context(), target)
				if err != nil || len(own.Replicas) != 1 || !own.Replicas[0].startedFrom(own.Dir) {
					t.Fatalf("an undo sees %+v, %v", own, err)
				}
				if err := own.MayBegin("op", remediation.Untouched); !remediation.IsUnfit(err) {
					t.Errorf("a look says %v", err)
				}
				if err := own.MayBegin("op", remediation.HalfWay); err != nil {
					t.Errorf("a look half-way says %v", err)
				}
				own.Replicas[0].Config.Labels[LabelOperation] = "op"
				if err := own.MayBegin("op", remediation.Wanted); err != nil {
					t.Errorf("a look at the operation's own says %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			seen := []string{}
			for _, r := range f.Replicas {
				seen = append(seen, r.ShortName())
			}
			if !slices.Equal(seen, c.seen) {
				t.Errorf("%v, want %v", seen, c.seen)
			}
		})
	}
}

// Both are asked of the containers that would serve: the hint starts no more, and whether a version runs is asked of each.
func TestALeftoverOfAnotherFolderIsCountedAndAskedAsWhatItIs(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	older, newer := filepath.Join(root, "41"), filepath.Join(root, "42")
	for _, dir := range []string{older, newer} {
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	target := alerts.ComposeTarget{ProjectDir: newer, Service: "web"}
	for name, c := range map[string]struct {
		all   []made
		scale string
	}{
		"one runs and one has ended": {[]made{{"shop", "shop-web-1", older, "exited", theImage}, {"shop", "shop-web-2", newer, "running", theImage}}, "web=1 "},
		"both have ended":            {[]made{{"shop", "shop-web-1", older, "exited", theImage}, {"shop", "shop-web-2", newer, "exited", theImage}}, "web=1 "},
		"both run":                   {[]made{{"shop", "shop-web-1", older, "running", theImage}, {"shop", "shop-web-2", newer, "running", theImage}}, "web=2 "},
	} {
		e := engineWith(t, []string{root}, c.all...)
		e.agreed = true
		_, err := e.Whole(t.Context(), target)
		if _, try := hint.Of(err); !strings.Contains(try, "--scale "+c.scale) {
			t.Errorf("%s: %q", name, try)
		}
		// The fake engine has one image, of every name: what an old container was made from decides.
		if err := e.Runs(t.Context(), alerts.Target{Compose: target}, "shop", "v1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		c.all[0].image = "sha256:other"
		if err := e.Runs(t.Context(), alerts.Target{Compose: target}, "shop", "v1"); err == nil || !strings.Contains(err.Error(), "container shop-web-1 runs image") {
			t.Errorf("%s, of another image: %v", name, err)
		}
	}
}
