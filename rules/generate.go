package rules

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/rulefmt"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/rules/dashboard"
	"github.com/locotoki/backout/rules/query"
)

// File is one generated file.
type File struct {
	// Name is its path below the output's root, with slashes, such as
	// "rules/social-intel.rules.yml" or "deploy/alertmanager.yml".
	Name    string
	Content []byte
	// Warnings says what the file lacks, such as a query without test input; show
	// them to the person who runs the generator.
	Warnings []string
}

// Settings are what the files depend on apart from the playbook. The zero value has
// the defaults.
type Settings struct {
	// WebhookURL is the address at which Alertmanager reaches backout.
	WebhookURL string
	// TokenFile is where Alertmanager finds its token for backout. The other
	// secrets are in the same folder.
	TokenFile string
	// MaxRulesPerGroup splits the rules into groups of at most this many; 0 for
	// one group.
	MaxRulesPerGroup int
	// Objects makes objects for the Prometheus Operator; nil for files. promtool reads no
	// objects, so they come without tests.
	Objects *Objects
}

// The settings' defaults.
const (
	DefaultWebhookURL = "http://127.0.0.1:9099/api/v1/webhook/alertmanager"
	DefaultTokenFile  = "/etc/backout/am.token"
)

func (s Settings) tokenFile() string { return cmp.Or(s.TokenFile, DefaultTokenFile) }

// Generate returns what is derived from a valid playbook: what Deployed returns,
// and the rules' promtool tests. The same playbook gives the same bytes.
func (s Settings) Generate(pb *alerts.Playbook) ([]File, error) {
	files, err := s.Deployed(pb)
	if err != nil || s.Objects != nil {
		return files, err
	}
	groups, err := s.groups(pb)
	if err != nil {
		return nil, err
	}
	tests, missing, err := testsOf(pb)
	if err != nil {
		return nil, fmt.Errorf("generate the rules' tests: %w", err)
	}
	for i, t := range tests {
		f := File{Name: "rules/" + pb.Service + t.infix + TestSuffix}
		if s.MaxRulesPerGroup > 0 {
			for _, g := range groups {
				t.GroupEvalOrder = append(t.GroupEvalOrder, g.Name)
			}
		}
		head := header(pb)
		if i == 0 {
			f.Warnings = missing
			for _, m := range missing {
				head += "# Not covered: " + m + "\n"
			}
		}
		if f.Content, err = marshal(head, t.testFile); err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// TestSuffix ends the names of the promtool tests.
const TestSuffix = ".test.yml"

// dashboardFolder is where Grafana's provisioning finds the dashboards.
const dashboardFolder = "deploy/grafana/dashboards/"

// Deployed returns the files for other programs: the rules and Alertmanager's configuration,
// or the objects with both, and Grafana's dashboards. The tests take nearly all of Generate's time.
func (s Settings) Deployed(pb *alerts.Playbook) ([]File, error) {
	boards, warnings, err := dashboard.Files(pb)
	if err != nil {
		return nil, fmt.Errorf("generate the dashboards: %w", err)
	}
	files, err := s.alerting(pb)
	if err != nil {
		return nil, err
	}
	first := len(files)
	for _, b := range boards {
		files = append(files, File{Name: dashboardFolder + b.UID + ".json", Content: b.Content})
	}
	files[first].Warnings = warnings // backout's own is always there
	return files, nil
}

// alerting returns what Prometheus and Alertmanager read, or the Prometheus Operator.
func (s Settings) alerting(pb *alerts.Playbook) ([]File, error) {
	if s.Objects != nil {
		return s.objects(pb)
	}
	ruleFile, err := s.rules(pb)
	if err != nil {
		return nil, err
	}
	am, err := s.alertmanager(pb)
	return []File{ruleFile, am}, err
}

// Rules returns the rule file alone, checked, with the default settings.
func Rules(pb *alerts.Playbook) (File, error) { return Settings{}.rules(pb) }

func (s Settings) rules(pb *alerts.Playbook) (File, error) {
	groups, err := s.groups(pb)
	if err != nil {
		return File{}, err
	}
	content, err := marshal(header(pb), ruleFile{groups})
	if err != nil {
		return File{}, err
	}
	if err := checkRules(groups); err != nil {
		return File{}, fmt.Errorf("the rules generated for %s are not valid: %w", pb.Service, err)
	}
	return File{Name: "rules/" + pb.Service + ".rules.yml", Content: content}, nil
}

// checkRules parses the expressions and carries out the templates.
func checkRules(groups []group) error {
	var errs []error
	for _, g := range groups {
		for _, r := range g.Rules {
			if _, err := query.Parse(r.Expr); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", cmp.Or(r.Record, r.Alert), err))
			}
			if r.Alert != "" {
				errs = append(errs, checkTemplates(r, map[string]string{"reason": "approval", "channel": "slack"}))
			}
		}
	}
	return errors.Join(errs...)
}

// asPrometheus reads a rule file as Prometheus does.
func asPrometheus(f File) error {
	_, errs := rulefmt.Parse(f.Content, false, model.LegacyValidation, query.Parser(), promslog.NewNopLogger())
	return errors.Join(errs...)
}

// GeneratedFor returns the service for whose playbook the generator wrote a
// file; "" if it did not, or for all playbooks together.
func GeneratedFor(content []byte) string {
	m := generatedFor.FindSubmatch(content)
	if m == nil {
		return ""
	}
	return string(m[1])
}

// generatedFor is the mark of rules, tests and dashboards, at their beginning.
var generatedFor = regexp.MustCompile("\\A(?s:.{0,200}?)Generated by `backout rules generate` from the playbook of ([A-Za-z0-9_.-]+); do not edit\\.")

func header(pb *alerts.Playbook) string {
	return fmt.Sprintf("# Generated by `backout rules generate` from the playbook of %s; do not edit.\n", pb.Service)
}

func marshal(head string, v any) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(head)
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return b.Bytes(), nil
}
