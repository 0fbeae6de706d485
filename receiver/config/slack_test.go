package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTheTeamsChatIsRead(t *testing.T) {
	cfg, _, err := load(t, map[string]string{
		"backout.yml": "slack: {token_file: slack.token, signing_secret_file: slack.secret, users: [{id: U012AB3CD, name: ann}, {id: W012AB3CD, name: bob@example.com}]}",
		"slack.token": "xoxb-hush\n", "slack.secret": "sign-hush\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	s := cfg.Slack
	if s == nil || s.URL != "https://slack.com/api" || s.Token.Reveal() != "xoxb-hush" || s.SigningSecret.Reveal() != "sign-hush" || !s.Answers() {
		t.Fatalf("%+v", s)
	}
	if want := []SlackUser{{"U012AB3CD", "ann"}, {"W012AB3CD", "bob@example.com"}}; !slices.Equal(s.Users, want) {
		t.Errorf("users %v, want %v", s.Users, want)
	}
	if shown := fmt.Sprintf("%v %+v %#v %s", s, *s, *s, s.Token); strings.Contains(shown, "hush") {
		t.Errorf("a secret is shown: %s", shown)
	}

	cfg, _, err = load(t, map[string]string{"backout.yml": "slack: {url: http://127.0.0.1:8080/api/, token_file: slack.token}", "slack.token": "xoxb-hush"})
	if err != nil || cfg.Slack.URL != "http://127.0.0.1:8080/api" || cfg.Slack.Answers() {
		t.Errorf("%+v: %v", cfg, err)
	}
	if cfg, _, err := load(t, map[string]string{"backout.yml": ""}); err != nil || cfg.Slack.Answers() || cfg.Slack != nil {
		t.Errorf("%+v: %v", cfg, err)
	}
}

func TestAMistakeInTheTeamsChatIsReportedWithItsLine(t *testing.T) {
	const good = "token_file: a.token, signing_secret_file: b.token"
	for name, tc := range map[string]struct{ content, words, try string }{
		"no token":             {"slack: {}", "slack needs token_file", "{token_file: slack.token}"},
		"in the clear":         {"slack: {url: 'http://slack.example.com', token_file: a.token}", "slack.url must be https", "https://slack.com/api"},
		"a password":           {"slack: {url: 'https://u:hunter2@x', token_file: a.token}", "slack.url must not contain a secret", "without USER:PASSWORD@"},
		"no such file":         {"slack: {token_file: none}", "slack.token_file: open", "xoxb-"},
		"no such secret":       {"slack: {token_file: a.token, signing_secret_file: none, users: [{id: U012, name: ann}]}", "slack.signing_secret_file: open", "signing secret"},
		"a token in the file":  {"slack: {token: xoxb-1}", `unknown key "token" in slack`, "one of url, token_file, signing_secret_file, users"},
		"a secret, and nobody": {"slack: {" + good + "}", "both signing_secret_file and users, or neither", "users: [{id: U012AB3CD, name: ann}]"},
		"users, and no secret": {"slack: {token_file: a.token, users: [{id: U012, name: ann}]}", "both signing_secret_file and users, or neither", "signing_secret_file"},
		"a name for an id":     {"slack: {" + good + ", users: [{id: ann, name: ann}]}", `invalid Slack user ID "ann"`, "member ID"},
		"half a user":          {"slack: {" + good + ", users: [{id: U012}]}", "a user of slack needs id and name", "{id: U012AB3CD, name: ann}"},
		"an odd name":          {"slack: {" + good + ", users: [{id: U012, name: 'a:b'}]}", `invalid Slack user name "a:b"`, "letters, digits"},
		"an id twice":          {"slack: {" + good + ", users: [{id: U012, name: a}, {id: U012, name: b}]}", "is listed twice", "once"},
		"a name twice":         {"slack: {" + good + ", users: [{id: U012, name: a}, {id: U013, name: a}]}", "is listed twice", "once"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, path, err := load(t, map[string]string{"backout.yml": tc.content, "a.token": "a-hush", "b.token": "b-hush"})
			if err == nil || cfg != nil {
				t.Fatalf("no mistake was found: %+v", cfg)
			}
			text := err.Error()
			if !strings.HasPrefix(text, path+":1: ") || !strings.Contains(text, tc.words) || !strings.Contains(text, "; try: ") || !strings.Contains(text, tc.try) || strings.Contains(text, "\n") {
				t.Errorf("said %q", text)
			}
			if strings.Contains(text, "hush") || strings.Contains(text, "hunter2") {
				t.Errorf("a secret is told: %q", text)
			}
		})
	}
}

func TestASlackSecretThatOthersHaveAccessToIsRefused(t *testing.T) {
	for _, open := range []string{"a.token", "b.token"} {
		dir := folder(t, map[string]string{
			"backout.yml": "slack: {token_file: a.token, signing_secret_file: b.token, users: [{id: U012, name: ann}]}", "a.token": "a", "b.token": "b",
		})
		if err := os.Chmod(filepath.Join(dir, open), 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(filepath.Join(dir, "backout.yml")); err == nil || !strings.Contains(err.Error(), "try: chmod 600 "+filepath.Join(dir, open)) {
			t.Errorf("%s: %v", open, err)
		}
	}
}
