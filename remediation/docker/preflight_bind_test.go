package docker

import (
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation/docker/fleet"
)

func TestWhatIsStartedAsideWritesIntoNoFolderAndRelabelsNone(t *testing.T) {
	for bind, want := range map[string]string{
		"/srv/data:/data":             "/srv/data:/data:ro",
		"/srv/data:/data:rw":          "/srv/data:/data:ro",
		"data:/data:ro":               "data:/data:ro",
		"/srv/data:/data:Z":           "/srv/data:/data:ro",
		"/srv/data:/data:rw,z,rslave": "/srv/data:/data:ro,rslave",
	} {
		if got := readOnly(bind); got != want {
			t.Errorf("%s became %s, want %s", bind, got, want)
		}
	}
}

// A sign-off counts for as long as the same is seen, and each test container has another id, name and address.
func TestNothingOfATestContainersOwnIsInTheEvidence(t *testing.T) {
	a := aside{check: fleet.Check{Health: "http://127.0.0.1:8080/health", Version: "http://10.0.0.9/version"}}
	seen := func(id, name, host string) string {
		return a.nameless("container "+name+" ("+id+") does not work within 30 s: health: Get http://"+host+"/health: refused; http://10.0.0.9/version", id,
			[]string{"http://" + host + "/health", "", "http://10.0.0.9/version"})
	}
	one, other := seen(strings.Repeat("a", 64), "web_backout_preflight_0a1b2c3d", "172.18.0.5:8080"), seen(strings.Repeat("b", 64), "web_backout_preflight_ffffffff", "172.18.0.6:8080")
	if one != other || !strings.Contains(one, "http://the-test-container/health: refused; http://10.0.0.9/version") {
		t.Errorf("%s\n%s", one, other)
	}
}
