package config

import (
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/remediation/audit"
)

// Webhook is an address that gets audit entries as they are written, in their order.
type Webhook struct {
	// Name tells it from other webhooks, in the audit log and in metrics. Default: the
	// address's host.
	Name string `config:"name"`
	// URL is where entries are posted, https or loopback. It has no query, which often holds
	// a secret: what proves an entry's sender is its signature.
	URL string `config:"url"`
	// Secret is a file that holds the secret that signs them.
	Secret Secret `config:"secret_file"`
	// Kinds are the kinds of entries that it gets. Default: all but received and
	// duplicate, of which there is one for each notification.
	Kinds []audit.Kind `config:"kinds"`
}

// Same reports whether both send the same entries to one address with one secret.
func (w Webhook) Same(other Webhook) bool {
	return w.Name == other.Name && w.URL == other.URL && w.Secret == other.Secret && slices.Equal(w.Kinds, other.Kinds)
}

// webhooks reads the webhooks; those that are wrong are left out.
func (r *configReader) webhooks(n *yaml.Node) (all []Webhook) {
	names := map[string]bool{}
	r.each(n, "webhooks", func(n *yaml.Node) {
		before := len(r.mistakes)
		w := Webhook{Kinds: slices.DeleteFunc(audit.Kinds(), func(k audit.Kind) bool { return k == audit.KindReceived || k == audit.KindDuplicate })}
		var secret *yaml.Node
		r.fields(n, "a webhook",
			field{"name", func(n *yaml.Node) { w.Name = r.text(n, "a webhook's name") }},
			field{"url", func(n *yaml.Node) {
				if r.secretAddress(n, "a webhook's url", "https://example.com/backout", "audit log", &w.URL); strings.HasSuffix(n.Value, "/") {
					w.URL += "/" // nothing is added to it: it stays as it is written
				}
			}},
			field{"secret_file", func(n *yaml.Node) { secret = n }},
			field{"kinds", func(n *yaml.Node) { w.Kinds = r.kinds(n) }})
		if (w.URL == "" || secret == nil) && len(r.mistakes) == before {
			r.fail(n, "{url: https://example.com/backout, secret_file: webhook.secret}", "a webhook needs url and secret_file")
		}
		if u, err := url.Parse(w.URL); err == nil && w.Name == "" {
			w.Name = u.Hostname()
		}
		w.Secret = r.secretFile(secret, "a webhook's secret_file", "the secret that signs its messages")
		switch {
		case len(r.mistakes) > before:
			return
		case !tokenName.MatchString(w.Name) && w.Name != "":
			r.fail(n, "letters, digits and . _ @ -, 64 at most", "invalid webhook name %q", w.Name)
		case names[w.Name]:
			r.fail(n, "another name: for one of them", "two webhooks are named %q", w.Name)
		default:
			all = append(all, w)
		}
		names[w.Name] = true
	})
	return all
}

func (r *configReader) kinds(n *yaml.Node) (kinds []audit.Kind) {
	r.each(n, "a webhook's kinds", func(n *yaml.Node) {
		k := audit.Kind(r.text(n, "a kind"))
		if k != "" && !slices.Contains(audit.Kinds(), k) {
			r.fail(n, "a kind of the audit log, such as held: see docs/audit.md", "unknown kind %q", k)
		}
		kinds = append(kinds, k)
	})
	return kinds
}
