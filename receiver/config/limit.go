package config

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
)

// Limit is how many services of a realm may be rolled back without a person.
type Limit struct {
	// Realm is what is counted together: host:NAME for the services with this target.compose.host, cluster:CONTEXT for
	// those with this target.kubernetes.context, cluster for those in the cluster that backout
	// runs in, or default for all others. Default: each realm that has no limit of its own;
	// every realm is counted by itself.
	Realm string `config:"realm"`
	// Services is how many services may be rolled back within a time. A step of a further one
	// is held until the time is up or a commander approves it.
	Services alerts.Rate `config:"services"`
}

// limits reads the limits of realms; those that are wrong are left out.
func (r *configReader) limits(n *yaml.Node) (all []Limit) {
	r.each(n, "limits", func(n *yaml.Node) {
		before := len(r.mistakes)
		var l Limit
		r.fields(n, "a limit",
			field{"realm", func(n *yaml.Node) { l.Realm = r.realm(n) }},
			field{"services", func(n *yaml.Node) {
				if err := l.Services.UnmarshalText([]byte(n.Value)); n.Kind != yaml.ScalarNode || err != nil {
					r.fail(n, "services: 5/10m, which is 5 services within 10 minutes", "a limit's services must be a count and a duration")
				}
			}})
		switch {
		case len(r.mistakes) > before:
		case l.Services.Count == 0:
			r.fail(n, "{services: 5/10m}", "a limit needs services")
		case slices.ContainsFunc(all, func(o Limit) bool { return o.Realm == l.Realm }):
			r.fail(n, "one limit for each realm", "there are two limits of realm %q", l.Realm)
		default:
			all = append(all, l)
		}
	})
	return all
}

// realm reads the name of a realm of limits.
func (r *configReader) realm(n *yaml.Node) string {
	text := r.text(n, "a limit's realm")
	kind, name, named := strings.Cut(text, ":")
	if text != "" && text != "default" && text != "cluster" && (!named || name == "" || kind != "host" && kind != "cluster") {
		r.fail(n, "host:NAME, cluster:CONTEXT, cluster or default", "invalid realm %q of a limit", text)
	}
	return text
}
