package config

import (
	"net/url"
	"slices"
	"testing"
)

func TestAConfigurationSaysInWhatItDiffersFromTheOneBeforeIt(t *testing.T) {
	token := func(name string, role Role, secret string) Token {
		tok, err := NewToken(name, role, secret)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	before := &Config{
		Tokens: []Token{token("am", Alertmanager, "a"), token("bob", Viewer, "b"), token("eve", Viewer, "e"), token("oncall", Commander, "o")},
		Slack:  &Slack{SigningSecret: NewSecret("s"), Users: []SlackUser{{ID: "U1", Name: "ann"}, {ID: "U2", Name: "bea"}}},
	}
	after := &Config{
		ExternalURL: &url.URL{Scheme: "https", Host: "backout.example.com"},
		Tokens:      []Token{token("am", Alertmanager, "a"), token("bob", Commander, "b"), token("oncall", Commander, "other"), token("zoe", Viewer, "z")},
		Slack:       &Slack{SigningSecret: NewSecret("other"), Users: []SlackUser{{ID: "U1", Name: "ann"}, {ID: "U3", Name: "bea"}, {ID: "U4", Name: "cem"}}},
	}
	for _, c := range []struct {
		before, after *Config
		want          []string
	}{
		{before, after, []string{
			"token bob is commander, was viewer", "token oncall has a new secret", "token zoe (viewer) added", "token eve (viewer) removed",
			"Slack user bea is U3, was U2", "Slack user cem (U4) added", "Slack has a new signing secret",
			"external_url is https://backout.example.com, was none",
		}},
		{before, &Config{Tokens: before.Tokens}, []string{"Slack user ann (U1) removed", "Slack user bea (U2) removed"}},
		{before, before, nil},
	} {
		if got := c.after.Changes(c.before); !slices.Equal(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
