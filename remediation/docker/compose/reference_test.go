package compose

import (
	"strings"
	"testing"
)

func TestANameIsTakenApartAsTheEngineDoes(t *testing.T) {
	for name, want := range map[string]Reference{
		"social-intel":                             {"social-intel", "latest", ""},
		"social-intel:v1":                          {"social-intel", "v1", ""},
		"docker.io/library/social-intel":           {"social-intel", "latest", ""},
		"docker.io/team/social-intel:v1":           {"team/social-intel", "v1", ""},
		"registry.example.com:5000/social-intel":   {"registry.example.com:5000/social-intel", "latest", ""},
		"registry.example.com:5000/a/b:v1":         {"registry.example.com:5000/a/b", "v1", ""},
		"social-intel@sha256:00":                   {"social-intel", "", "sha256:00"},
		"registry.example.com:5000/a:v1@sha256:00": {"registry.example.com:5000/a", "v1", "sha256:00"},
	} {
		if got := ParseReference(name); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

func TestAVersionIsSpelledAsItStands(t *testing.T) {
	for _, c := range []struct{ version, like, want string }{
		{"v1.0.0", "v2.0.0", "v1.0.0 1.0.0"}, {"v1.0.0", "2.0.0", "1.0.0 v1.0.0"}, {"1.0.0", "v2.0.0", "v1.0.0 1.0.0"},
		{"1.0.0", "", "1.0.0 v1.0.0"}, {"v1.0.0", "", "v1.0.0 1.0.0"}, {"release-7", "v2", "release-7"}, {"v1.0.0", "stable", "v1.0.0 1.0.0"},
	} {
		if got := strings.Join(Spellings(c.version, c.like), " "); got != c.want {
			t.Errorf("%s like %s: %s, want %s", c.version, c.like, got, c.want)
		}
	}
}
