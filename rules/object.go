package rules

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"strings"

	"github.com/prometheus/alertmanager/pkg/labels"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
)

// Objects is how the Prometheus Operator gets the rules and the routes: as a PrometheusRule and an AlertmanagerConfig for
// each service, in place of the files for Prometheus and Alertmanager.
type Objects struct {
	// Namespace is that of the objects. Each alert has it as its label namespace: the operator lets an AlertmanagerConfig
	// route only alerts with the label of its own namespace, unless the Alertmanager's alertmanagerConfigMatcherStrategy
	// is None. https://prometheus-operator.dev/docs/api-reference/api/ (AlertmanagerConfigMatcherStrategy)
	Namespace string
	// Labels are those by which the Prometheus and the Alertmanager select their objects.
	Labels map[string]string
}

// NamespaceLabel is a label that an alert has only in a PrometheusRule.
const NamespaceLabel = "namespace"

// DefaultNamespace is the namespace in deploy/kubernetes.
const DefaultNamespace = "backout"

// SecretName is the Secret in the objects' namespace with backout's token for Alertmanager and, where the playbook asks
// for them, the Slack webhook's URL and PagerDuty's routing key. Its keys are the names of the files that they are in
// elsewhere.
const SecretName = "backout-alertmanager"

// The ends of the objects' file names.
const (
	ruleObjectSuffix  = ".prometheusrule.yml"
	routeObjectSuffix = ".alertmanagerconfig.yml"
)

// IsObject reports whether a file of this name has an object for the Prometheus Operator.
func IsObject(name string) bool {
	return strings.HasSuffix(name, ruleObjectSuffix) || strings.HasSuffix(name, routeObjectSuffix)
}

// objectName is a service's name as Kubernetes allows it: lower case, without underscores.
func objectName(pb *alerts.Playbook) string {
	return "backout-" + strings.ReplaceAll(strings.ToLower(pb.Service), "_", "-")
}

func (o *Objects) file(pb *alerts.Playbook, suffix, version, kind string, spec any) (File, error) {
	meta := map[string]any{"name": objectName(pb), "namespace": o.Namespace}
	if len(o.Labels) > 0 {
		meta["labels"] = o.Labels
	}
	content, err := marshal(header(pb), struct {
		Version  string         `yaml:"apiVersion"`
		Kind     string         `yaml:"kind"`
		Metadata map[string]any `yaml:"metadata"`
		Spec     any            `yaml:"spec"`
	}{version, kind, meta, spec})
	return File{Name: "rules/" + pb.Service + suffix, Content: content}, err
}

// objects returns the two objects of a service.
func (s Settings) objects(pb *alerts.Playbook) ([]File, error) {
	groups, err := s.groups(pb)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		for i, r := range g.Rules {
			if r.Alert != "" {
				g.Rules[i].Labels = maps.Clone(r.Labels)
				g.Rules[i].Labels[NamespaceLabel] = s.Objects.Namespace
			}
		}
	}
	if err := checkRules(groups); err != nil {
		return nil, fmt.Errorf("the rules generated for %s are not valid: %w", pb.Service, err)
	}
	rule, err := s.Objects.file(pb, ruleObjectSuffix, "monitoring.coreos.com/v1", "PrometheusRule", ruleFile{groups})
	if err != nil {
		return nil, err
	}
	route, err := s.routeObject(pb)
	return []File{rule, route}, err
}

// routeObject is Alertmanager's configuration for one service, converted.
func (s Settings) routeObject(pb *alerts.Playbook) (File, error) {
	if s.WebhookURL == "" || s.WebhookURL == DefaultWebhookURL { // where the Service of deploy/kubernetes listens
		s.WebhookURL = "http://backout." + s.Objects.Namespace + ".svc:9099/api/v1/webhook/alertmanager"
	}
	var warnings []string
	v := s.amValues(pb)
	if v.Hours != nil && v.Hours.TimeZone != "UTC" {
		v.Hours = nil
		warnings = []string{"an AlertmanagerConfig has no time zones: the pager is called in business hours too; with time_zone: UTC it is not"}
	}
	plain, err := fillAlertmanager(v)
	if err != nil {
		return File{}, fmt.Errorf("write the AlertmanagerConfig: %w", err)
	}
	var config map[string]any
	if err := yaml.Unmarshal(plain, &config); err != nil {
		return File{}, fmt.Errorf("write the AlertmanagerConfig: %w", err)
	}
	converted, err := asObject(config)
	if err != nil {
		return File{}, fmt.Errorf("write the AlertmanagerConfig: %w", err)
	}
	spec := converted.(map[string]any)
	// Of the namespace's alerts, those of the service and those about backout itself, which have no service. The operator
	// lets the others continue to the next AlertmanagerConfig.
	own, itself := spec["route"].(map[string]any), maps.Clone(spec["route"].(map[string]any))
	own["matchers"] = []any{matcherObject("service", "=", pb.Service)}
	itself["matchers"] = []any{matcherObject("service", "=", ""), matcherObject("alertname", "=~", "Backout.+")}
	spec["route"] = map[string]any{"receiver": "nobody", "routes": []any{own, itself}}
	if v.Slack != "" { // else the file has it
		spec["receivers"] = append(spec["receivers"].([]any), map[string]any{"name": "nobody"})
	}
	f, err := s.Objects.file(pb, routeObjectSuffix, "monitoring.coreos.com/v1alpha1", "AlertmanagerConfig", spec)
	f.Warnings = warnings
	return f, err
}

// objectKeys are the keys of an AlertmanagerConfig that are more than another spelling of Alertmanager's.
var objectKeys = map[string]string{
	"api_url_file": "apiURL", "credentials_file": "credentials", "routing_key_file": "routingKey", "pagerduty_configs": "pagerdutyConfigs",
}

// asObject converts a part of Alertmanager's configuration to that of an AlertmanagerConfig: keys in camel case, matchers
// as mappings, and a file with a secret as a key of the Secret.
func asObject(v any) (any, error) {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		var errs []error
		for i, item := range v {
			var err error
			out[i], err = asObject(item)
			errs = append(errs, err)
		}
		return out, errors.Join(errs...)
	case map[string]any:
		out := map[string]any{}
		for key, value := range v {
			converted, err := objectValue(key, value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			switch name := objectKeys[key]; {
			case name != "":
				out[name] = converted
			case key == "location": // UTC, the only one that there is
			case key == "time_intervals" && v["route"] != nil: // at the top
				out["muteTimeIntervals"] = converted
			default:
				first, rest, _ := strings.Cut(key, "_")
				out[first+camel(rest)] = converted
			}
		}
		return out, nil
	}
	return v, nil
}

func objectValue(key string, value any) (any, error) {
	switch {
	case key == "matchers":
		var out []any
		for _, text := range value.([]any) {
			m, err := labels.ParseMatcher(text.(string))
			if err != nil {
				return nil, err
			}
			out = append(out, matcherObject(m.Name, m.Type.String(), m.Value))
		}
		return out, nil
	case strings.HasSuffix(key, "_file"):
		return map[string]any{"name": SecretName, "key": path.Base(value.(string))}, nil
	}
	return asObject(value)
}

func matcherObject(name, matchType, value string) map[string]any {
	return map[string]any{"name": name, "matchType": matchType, "value": value}
}
