package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/common/promslog"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/rules"
)

// What --format may be.
const (
	formatFiles   = "prometheus"
	formatObjects = "prometheusrule"
)

const rulesFolder = "rules"

// tryOutput is what to do where files cannot be read or written.
const tryOutput = "--output=DIR, a folder that you may write to"

func (c *commands) addRules() {
	parent := c.app.Command("rules", "Generate Prometheus rules from playbooks.")
	clause := parent.Command("generate", "Write the rules, their tests, Alertmanager's configuration and Grafana's dashboards.")
	files := c.playbookFlags(clause)
	check := clause.Flag("check", "Write nothing. If files differ from what would be written, name them and exit 1.").Bool()
	tests := clause.Flag("tests", "Write promtool tests for the rules too. They take nearly all of the time.").Default("true").Bool()
	var settings rules.Settings
	clause.Flag("webhook.url", "Address at which Alertmanager reaches backout.").Default(rules.DefaultWebhookURL).PlaceHolder("URL").StringVar(&settings.WebhookURL)
	clause.Flag("webhook.token-file", "Where Alertmanager finds its token for backout; slack.url and pagerduty.key are in the same folder.").Default(rules.DefaultTokenFile).PlaceHolder("FILE").StringVar(&settings.TokenFile)
	clause.Flag("max-rules-per-group", "Maximum number of rules per group, for Mimir and Cortex; 0 for one group. What one group reads from another is up to a scrape_interval old.").Default("0").PlaceHolder("N").IntVar(&settings.MaxRulesPerGroup)
	format := clause.Flag("format", "prometheus: files for Prometheus and Alertmanager. prometheusrule: for the Prometheus Operator, a PrometheusRule and an AlertmanagerConfig for each service, without tests; "+
		"their secrets are in the Secret "+rules.SecretName+", and Alertmanager reaches backout through its Service in their namespace, unless --webhook.url is given.").
		Default(formatFiles).Enum(formatFiles, formatObjects)
	namespace := clause.Flag("kubernetes.namespace", "Namespace of the objects, and the label namespace of each alert, without which the Prometheus Operator would not route it.").Default(rules.DefaultNamespace).PlaceHolder("NAMESPACE").String()
	labels := clause.Flag("kubernetes.label", "A label of the objects, by which the operator's Prometheus or Alertmanager selects them. Repeatable.").PlaceHolder("KEY=VALUE").StringMap()
	dir := clause.Flag("output", "Folder to write rules/ and deploy/ into. Where README.md or docs/*.md there have the markers of a coverage table, the table between them is written too.").Default(".").PlaceHolder("DIR").String()
	c.add(clause, func(context.Context) error {
		if *format == formatObjects {
			settings.Objects = &rules.Objects{Namespace: *namespace, Labels: *labels}
		}
		if u, err := url.Parse(settings.WebhookURL); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
			return wrong("--webhook.url="+rules.DefaultWebhookURL, "--webhook.url: %q is not an http or https address", settings.WebhookURL)
		}
		kinds, err := actionKinds(config.Default(), c.environ, promslog.NewNopLogger())
		if err != nil {
			return err
		}
		playbooks, _, err := files.loadPlaybooks(playbookKinds(kinds.list))
		if err := closing(kinds, err); err != nil {
			return wrong("", "%w", err)
		}
		for _, pb := range playbooks {
			if err := rules.Refused(pb); err != nil {
				return wrong("", "%w", err)
			}
		}
		work := c.progress()
		generate := settings.Generate
		if !*tests {
			generate = settings.Deployed
		}
		made, err := generated(playbooks, generate, work)
		work.Done()
		if err != nil {
			return wrong("", "%w", err)
		}
		if made, err = withCoverage(*dir, made, playbooks); err != nil {
			return wrong(tryOutput, "--output: %w", err)
		}
		stale, err := staleFiles(*dir, made)
		if err != nil {
			return err
		}
		left, err := leftover{dir: *dir, made: made, tests: *tests, objects: settings.Objects != nil}.files(playbooks, len(*files.playbookFiles) > 0)
		if err != nil {
			return err
		}
		stale = append(stale, left...)
		if *check {
			return c.reportStale(stale, len(made))
		}
		if err := c.writeFiles(*dir, stale, len(made)); err != nil || settings.Objects != nil {
			return err
		}
		return c.print(terminal.Clean(fmt.Sprintf("deploy/alertmanager.yml sends to %s (--webhook.url)", settings.WebhookURL)) + "\n" +
			terminal.Wrap("  ", fmt.Sprintf("and names %s (--webhook.token-file): Alertmanager must be able to read that", strings.Join(settings.SecretFiles(playbooks[0]), ", "))))
	})
}

// generated returns the files of all playbooks, each once.
func generated(playbooks []*alerts.Playbook, generate func(*alerts.Playbook) ([]rules.File, error), work *terminal.Progress) ([]rules.File, error) {
	var all []rules.File
	seen, from := map[string][]byte{}, map[string]string{}
	for i, pb := range playbooks {
		work.Say("playbook %d of %d: %s", i+1, len(playbooks), pb.Service)
		files, err := generate(pb)
		if err != nil {
			return nil, fmt.Errorf("generate rules of %s: %w", pb.Service, err)
		}
		for _, f := range files {
			if other, ok := seen[f.Name]; ok {
				if !bytes.Equal(other, f.Content) {
					return nil, hint.Add(fmt.Errorf("the playbooks of %s and %s generate a different %s", from[f.Name], pb.Service, f.Name),
						"the same communications in both, or an --output for each")
				}
				continue
			}
			seen[f.Name], from[f.Name] = f.Content, pb.Service
			all = append(all, f)
		}
	}
	return all, nil
}

// staleFile is a generated file that is out of date.
type staleFile struct {
	rules.File
	// State is "missing", "differs" or "left over".
	State string
}

const leftOver = "left over"

// leftover finds generated files that no playbook generates any more.
type leftover struct {
	dir   string
	made  []rules.File
	tests bool // made has the tests too
	// made has objects: it takes the place of objects, and otherwise of files
	objects bool
}

// files returns those of the services that playbooks has, and of all other
// services if it is complete.
func (l leftover) files(playbooks []*alerts.Playbook, complete bool) ([]staleFile, error) {
	var left []staleFile
	for _, folder := range []string{rulesFolder, "deploy/grafana/dashboards"} {
		entries, err := os.ReadDir(filepath.Join(l.dir, filepath.FromSlash(folder)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, wrong(tryOutput, "--output: %w", err)
		}
		for _, e := range entries {
			if ext := filepath.Ext(e.Name()); !e.Type().IsRegular() || ext != ".yml" && ext != ".json" {
				continue
			}
			f := rules.File{Name: folder + "/" + e.Name()}
			content, err := os.ReadFile(filepath.Join(l.dir, filepath.FromSlash(f.Name)))
			if err != nil {
				return nil, wrong(tryOutput, "--output: %w", err)
			}
			service := rules.GeneratedFor(content)
			ours := slices.ContainsFunc(playbooks, func(pb *alerts.Playbook) bool { return pb.Service == service })
			switch {
			case service == "" || !ours && !complete:
			case slices.ContainsFunc(l.made, func(m rules.File) bool { return m.Name == f.Name }):
			case ours && !l.tests && strings.HasSuffix(f.Name, rules.TestSuffix):
			case folder == rulesFolder && rules.IsObject(f.Name) != l.objects:
			default:
				left = append(left, staleFile{f, leftOver})
			}
		}
	}
	return left, nil
}

func staleFiles(dir string, made []rules.File) ([]staleFile, error) {
	var stale []staleFile
	for _, f := range made {
		have, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.Name)))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			stale = append(stale, staleFile{f, "missing"})
		case err != nil:
			return nil, wrong(tryOutput, "--output: %w", err)
		case !bytes.Equal(have, f.Content):
			stale = append(stale, staleFile{f, "differs"})
		}
	}
	return stale, nil
}

func (c *commands) reportStale(stale []staleFile, all int) error {
	if len(stale) == 0 {
		return c.print(fmt.Sprintf("ok: %s as generated\n", remediation.Counted(all, "file")))
	}
	var b strings.Builder
	for _, f := range stale {
		fmt.Fprintf(&b, "%s: %s\n", f.State, f.Name)
	}
	b.WriteString("To write them: backout rules generate, with the same flags except --check. Check with the flags that wrote them, --webhook.url too.\n")
	if err := c.print(b.String()); err != nil {
		return err
	}
	return errAnswered
}

func (c *commands) writeFiles(dir string, stale []staleFile, all int) error {
	var b strings.Builder
	written := 0
	for _, f := range stale {
		if f.State == leftOver {
			if err := os.Remove(filepath.Join(dir, filepath.FromSlash(f.Name))); err != nil {
				return wrong(tryOutput, "--output: %w", err)
			}
			fmt.Fprintf(&b, "removed %s: no playbook generates it any more\n", f.Name)
			continue
		}
		written++
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return wrong(tryOutput, "--output: %w", err)
		}
		if err := writeFile(name, f.Content); err != nil {
			return wrong(tryOutput, "--output: %w", err)
		}
		fmt.Fprintf(&b, "wrote %s\n", f.Name)
		for _, w := range f.Warnings {
			fmt.Fprintf(&b, "  warning: %s\n", terminal.CleanLines(w))
		}
	}
	into, err := filepath.Abs(dir)
	if err != nil {
		return wrong("", "--output: %w", err)
	}
	fmt.Fprintf(&b, "%s written, %d unchanged, in %s\n", remediation.Counted(written, "file"), all-written, into)
	return c.print(b.String())
}

// writeFile writes a file atomically, into a folder that exists: Prometheus may read it at any
// time.
func writeFile(name string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
