package config

import (
	"slices"
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation/audit"
)

func TestWebhooksAreReadAndTheirSecretsAreNotShown(t *testing.T) {
	cfg, err := loadMail(t, `webhooks:
  - {url: "https://example.com/backout", secret_file: secret}
  - {name: siem, url: "http://127.0.0.1:8080", secret_file: secret, kinds: [held, outcome]}
`)
	if err != nil || len(cfg.Webhooks) != 2 {
		t.Fatal(err, cfg)
	}
	first, second := cfg.Webhooks[0], cfg.Webhooks[1]
	if first.Name != "example.com" || first.Secret.Reveal() != "s3cret-of-mail" || len(first.Kinds) != len(audit.Kinds())-2 || slices.Contains(first.Kinds, audit.KindReceived) {
		t.Errorf("the first is %+v", first)
	}
	if second.Name != "siem" || !slices.Equal(second.Kinds, []audit.Kind{audit.KindHeld, audit.KindOutcome}) || first.Same(second) || !second.Same(second) {
		t.Errorf("the second is %+v", second)
	}
}

func TestAWebhookThatIsWrongIsRefusedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		`[{secret_file: secret}]`:                                                                                "a webhook needs url and secret_file",
		`[{url: "https://h.example"}]`:                                                                           "a webhook needs url and secret_file",
		`[{url: "http://h.example", secret_file: secret}]`:                                                       "must be https",
		`[{url: "https://u:p@h.example", secret_file: secret}]`:                                                  "must not contain a secret",
		`[{url: "https://h.example", secret_file: missing}]`:                                                     "secret_file:",
		`[{url: "https://h.example", secret_file: secret, kinds: [all]}]`:                                        `unknown kind "all"`,
		`[{url: "https://h.example", secret_file: secret, name: "a b"}]`:                                         `invalid webhook name "a b"`,
		`[{url: "https://h.example/a", secret_file: secret}, {url: "https://h.example/b", secret_file: secret}]`: `two webhooks are named "h.example"`,
		`{url: "https://h.example"}`:                                                                             "webhooks must be a list",
	} {
		_, err := loadMail(t, "webhooks: "+text+"\n")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "config.yml:1:") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: got %v, want %q with its line", text, err, want)
		}
	}
}
