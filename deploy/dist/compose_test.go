// Package dist has the tests of what a release consists of. Those with the build tag dist take what `make dist` built.
package dist

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// composeFile is what the test looks at of `docker compose config --format=json`.
type composeFile struct {
	Services map[string]struct {
		Image       string
		User        string
		ReadOnly    bool     `json:"read_only"`
		Privileged  bool     `json:"privileged"`
		CapAdd      []string `json:"cap_add"`
		CapDrop     []string `json:"cap_drop"`
		SecurityOpt []string `json:"security_opt"`
		GroupAdd    []string `json:"group_add"`
		Volumes     []struct {
			Type, Source, Target string
			ReadOnly             bool `json:"read_only"`
		}
	}
}

// The compose tool reads deploy/compose.yaml as an operator's does: nothing in it has more than it needs, and no container sees
// another's secrets.
func TestComposeFileGrantsNoMoreThanNeeded(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("docker-compose2", "-f", "../compose.yaml", "config", "--format=json")
	cmd.Env = append(os.Environ(), "BACKOUT_VERSION=v1.2.3", "DOCKER_GID=997", "PROJECT_DIR=/srv/shop", "CONFIG_DIR=/etc/backout", "ALERTMANAGER_SECRETS=/etc/am")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker-compose2: %v\n%s", err, stderr.String())
	}
	var file composeFile
	if err := json.Unmarshal(out, &file); err != nil {
		t.Fatal(err)
	}
	readers := map[string][]string{} // of a path of the host that is not a file of this checkout
	for name, s := range file.Services {
		if !s.ReadOnly || s.Privileged || len(s.CapAdd) > 0 || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s is not hardened: %+v", name, s)
		}
		if _, tag, ok := strings.Cut(s.Image, ":"); !ok || tag == "latest" {
			t.Errorf("%s: image %q has no version", name, s.Image)
		}
		if s.User == "root" || strings.HasPrefix(s.User, "0") {
			t.Errorf("%s runs as %s", name, s.User)
		}
		if len(s.GroupAdd) > 0 && name != "backout" {
			t.Errorf("%s is in the groups %v", name, s.GroupAdd)
		}
		for _, v := range s.Volumes {
			if v.Type != "bind" {
				continue
			}
			readers[v.Source] = append(readers[v.Source], name)
			if writes := v.Source == "/srv/shop" || v.Source == "/var/run/docker.sock"; v.ReadOnly == writes {
				t.Errorf("%s: read_only is %t for %s", name, v.ReadOnly, v.Source)
			}
		}
	}
	for path, want := range map[string]string{"/var/run/docker.sock": "backout", "/srv/shop": "backout", "/etc/backout": "backout", "/etc/am": "alertmanager"} {
		if got := readers[path]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s is mounted into %v, want %s only", path, got, want)
		}
	}
}
