// Package config reads backout's own configuration: the neighbours, tokens, people and
// channels. Every key has a default; a wrong file is refused with all that is wrong in
// it, and no secret is ever printed.
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/trust"
)

// Config is the file of --config.file: where the other programs are, who may call
// backout, and whom it tells. The file itself holds no secret.
//
// A config tag is a key of the file, and the comment its description in the
// configuration reference in docs; a test compares the tags with what is read.
type Config struct {
	// PrometheusURL is Prometheus's address; it may have a query, such as
	// ?partial_response=false, which goes with every request.
	PrometheusURL string `config:"prometheus.url"`
	// PrometheusTimeout is how long one query may take.
	PrometheusTimeout time.Duration `config:"prometheus.timeout"`
	PrometheusHTTP    Outgoing      `config:"prometheus"`
	// AlertmanagerURL is Alertmanager's address. backout asks it for silences.
	AlertmanagerURL  string   `config:"alertmanager.url"`
	AlertmanagerHTTP Outgoing `config:"alertmanager"`
	// DockerHost is the Docker engine's address, unix:// or tcp://.
	DockerHost string `config:"docker.host"`
	// DockerProjects are the folders of the compose projects that backout may change,
	// absolute paths. A project outside them is refused. Default: none.
	DockerProjects []string `config:"docker.projects"`
	// Kubeconfig is a kubeconfig that only its owner can read; a playbook names the context
	// (target.kubernetes.context). Default: backout runs in the cluster, as its own service
	// account.
	Kubeconfig string `config:"kubernetes.kubeconfig"`
	// ExternalURL is the address at which people and browsers reach backout, without a
	// path. Default: loopback only.
	ExternalURL *url.URL `config:"external_url"`
	// Tokens are the callers. Default: none, so that backout listens on loopback only,
	// takes the webhook and reads, and runs no step that can lose data.
	Tokens []Token `config:"tokens"`
	// DSN is a file with the data source name on one line, such as
	// sqlite:/var/lib/backout/backout.db or postgres://backout:PASSWORD@db/backout. It
	// wins over --storage.dsn.
	DSN string `config:"storage.dsn_file"`
	// ReplicaName is what this process is called in the audit log, in metrics and in
	// backout status, where several share a PostgreSQL database. Default: the name of its
	// host.
	ReplicaName string `config:"replica.name"`
	// ReplicaHosts are the machines whose compose projects this process can act on, by the
	// names that playbooks give them in target.compose.host. Default: none.
	ReplicaHosts []string `config:"replica.hosts"`
	// ReplicaLease is how long another replica waits after the last sign of life of the one
	// that acts; at least 3s. The same for all of them.
	ReplicaLease time.Duration `config:"replica.lease"`
	// Limits are how many services of a realm may be rolled back without a person. The limits
	// of their playbooks hold too. Default: none.
	Limits []Limit `config:"limits"`
	// SnapshotDir is the folder in which schema_rollback keeps snapshots of databases. A
	// relative path begins at the working folder.
	SnapshotDir string `config:"snapshots.dir"`
	// Statuspage is a page of Atlassian Statuspage that follows the built-in page.
	Statuspage *Statuspage `config:"statuspage"`
	// LaunchDarkly is the account that keeps flags.
	LaunchDarkly *LaunchDarkly `config:"launchdarkly"`
	// Unleash is the Unleash server that keeps flags.
	Unleash *Unleash `config:"unleash"`
	// Slack is the workspace in which the team is told.
	Slack *Slack `config:"slack"`
	// Mail is the mail server for mail to customers.
	Mail *Mail `config:"mail"`
	// Webhooks get audit entries as they are written. Default: none.
	Webhooks []Webhook `config:"webhooks"`
}

// Default is what holds where the file, or a key of it, is missing.
func Default() *Config {
	return &Config{
		PrometheusURL:     "http://127.0.0.1:9090",
		PrometheusTimeout: 5 * time.Second,
		AlertmanagerURL:   "http://127.0.0.1:9093",
		DockerHost:        "unix:///var/run/docker.sock",
		ReplicaLease:      10 * time.Second,
		SnapshotDir:       "data/snapshots",
	}
}

// MaxConfig is the largest configuration file, in bytes.
const MaxConfig = 4 << 20

// Load reads a configuration file and the files that it names. All its
// mistakes are reported together, each on a line of its own as
// "FILE:LINE: what is wrong; try: what to write instead".
func Load(path string) (*Config, error) {
	source, err := trust.ReadFile(path, MaxConfig)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	r := &configReader{file: path, dir: filepath.Dir(path)}
	cfg := Default()
	if root := r.parse(source); root != nil {
		r.root(root, cfg)
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// configReader walks the file and collects its mistakes.
type configReader struct {
	file, dir string
	mistakes  []mistake
}

type mistake struct {
	line int
	err  error
}

func (r *configReader) failAt(line int, try, format string, args ...any) {
	err := fmt.Errorf("%s:%d: %w", r.file, line, fmt.Errorf(format, args...))
	r.mistakes = append(r.mistakes, mistake{line, hint.Add(err, "%s", try)})
}

func (r *configReader) fail(n *yaml.Node, try, format string, args ...any) {
	r.failAt(n.Line, try, format, args...)
}

func (r *configReader) err() error {
	slices.SortStableFunc(r.mistakes, func(a, b mistake) int { return cmp.Compare(a.line, b.line) })
	errs := make([]error, len(r.mistakes))
	for i, m := range r.mistakes {
		errs[i] = m.err
	}
	return errors.Join(errs...)
}

// yamlLine takes the line out of an error of the YAML parser.
var yamlLine = regexp.MustCompile(`^yaml: line (\d+): (.*)$`)

// parse returns the file's top node, nil if it is empty or broken.
func (r *configReader) parse(source []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(source))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		switch err = dec.Decode(&more); {
		case err == nil:
			r.fail(&more, "one document per file", "a second YAML document")
		case errors.Is(err, io.EOF):
			err = nil
		}
	}
	if err != nil {
		line, text := 1, strings.TrimPrefix(err.Error(), "yaml: ")
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			if n, err := strconv.Atoi(m[1]); err == nil {
				line, text = n, m[2]
			}
		}
		r.failAt(line, "", "not YAML: %s", text)
		return nil
	}
	if len(doc.Content) == 0 {
		return nil
	}
	return doc.Content[0]
}

// field reads the value of one key.
type field struct {
	key  string
	read func(*yaml.Node)
}

// fields reads a mapping; a null is an empty one.
func (r *configReader) fields(n *yaml.Node, what string, known ...field) {
	n = target(n)
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.fail(n, "keys and values", "%s must be a mapping", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := slices.IndexFunc(known, func(f field) bool { return f.key == key.Value })
		switch {
		case at < 0:
			keys := make([]string, len(known))
			for i, f := range known {
				keys[i] = f.key
			}
			r.fail(key, "one of "+strings.Join(keys, ", "), "unknown key %q in %s", key.Value, what)
		case seen[key.Value]:
			r.fail(key, "one of them only", "key %q is given twice in %s", key.Value, what)
		case !isNull(target(value)):
			known[at].read(target(value))
		}
		seen[key.Value] = true
	}
}

// each reads a list.
func (r *configReader) each(n *yaml.Node, what string, read func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		r.fail(n, "[...]", "%s must be a list", what)
		return
	}
	for _, item := range n.Content {
		read(target(item))
	}
}

// text reads a string that is not empty, "" if it is none.
func (r *configReader) text(n *yaml.Node, what string) string {
	if n.Kind != yaml.ScalarNode || strings.TrimSpace(n.Value) == "" {
		r.fail(n, "", "%s must be a non-empty text", what)
		return ""
	}
	return n.Value
}

// target follows an alias.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (r *configReader) root(n *yaml.Node, cfg *Config) {
	if n.Kind == yaml.MappingNode && slices.ContainsFunc(n.Content, func(n *yaml.Node) bool { return n.Value == "triggers" || n.Value == "indicators" }) {
		r.fail(n, "--playbook.file="+r.file, "this is a playbook, not a configuration of backout")
		return
	}
	r.fields(n, "the configuration",
		field{"prometheus", func(n *yaml.Node) {
			r.fields(n, "prometheus", append([]field{
				{"url", func(n *yaml.Node) { r.prometheusURL(n, &cfg.PrometheusURL) }},
				{"timeout", func(n *yaml.Node) { r.duration(n, "prometheus.timeout", &cfg.PrometheusTimeout) }},
			}, r.outgoing("prometheus", &cfg.PrometheusHTTP)...)...)
		}},
		field{"alertmanager", func(n *yaml.Node) {
			r.fields(n, "alertmanager", append([]field{
				{"url", func(n *yaml.Node) { r.address(n, "alertmanager.url", "http://127.0.0.1:9093", &cfg.AlertmanagerURL) }},
			}, r.outgoing("alertmanager", &cfg.AlertmanagerHTTP)...)...)
		}},
		field{"docker", func(n *yaml.Node) {
			r.fields(n, "docker",
				field{"host", func(n *yaml.Node) { cfg.DockerHost = r.dockerHost(n) }},
				field{"projects", func(n *yaml.Node) {
					r.each(n, "docker.projects", func(n *yaml.Node) { cfg.DockerProjects = append(cfg.DockerProjects, r.project(n)) })
				}})
		}},
		field{"kubernetes", func(n *yaml.Node) {
			r.fields(n, "kubernetes",
				field{"kubeconfig", func(n *yaml.Node) { cfg.Kubeconfig = r.kubeconfig(n) }})
		}},
		field{"external_url", func(n *yaml.Node) { cfg.ExternalURL = r.externalURL(n) }},
		field{"tokens", func(n *yaml.Node) { cfg.Tokens = r.tokens(n) }},
		field{"storage", func(n *yaml.Node) {
			r.fields(n, "storage",
				field{"dsn_file", func(n *yaml.Node) { cfg.DSN = r.dsn(n) }})
		}},
		field{"replica", func(n *yaml.Node) {
			r.fields(n, "replica",
				field{"name", func(n *yaml.Node) { cfg.ReplicaName = r.name(n, "replica.name") }},
				field{"hosts", func(n *yaml.Node) {
					r.each(n, "replica.hosts", func(n *yaml.Node) { cfg.ReplicaHosts = append(cfg.ReplicaHosts, r.name(n, "a host in replica.hosts")) })
				}},
				field{"lease", func(n *yaml.Node) { r.lease(n, &cfg.ReplicaLease) }})
		}},
		field{"limits", func(n *yaml.Node) { cfg.Limits = r.limits(n) }},
		field{"snapshots", func(n *yaml.Node) {
			r.fields(n, "snapshots",
				field{"dir", func(n *yaml.Node) { cfg.SnapshotDir = r.text(n, "snapshots.dir") }})
		}},
		field{"statuspage", func(n *yaml.Node) { cfg.Statuspage = r.statuspage(n) }},
		field{"launchdarkly", func(n *yaml.Node) { cfg.LaunchDarkly = r.launchDarkly(n) }},
		field{"unleash", func(n *yaml.Node) { cfg.Unleash = r.unleash(n) }},
		field{"slack", func(n *yaml.Node) { cfg.Slack = r.slack(n) }},
		field{"mail", func(n *yaml.Node) { cfg.Mail = r.mail(n) }},
		field{"webhooks", func(n *yaml.Node) { cfg.Webhooks = r.webhooks(n) }})
}

// plainName is what a replica or a host may be called.
var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// name reads a replica's or a host's.
func (r *configReader) name(n *yaml.Node, what string) string {
	text := r.text(n, what)
	if text != "" && !plainName.MatchString(text) {
		r.fail(n, "letters, digits, dots, dashes and underscores, such as web-1", "%s: invalid name %q", what, text)
	}
	return text
}

// minLease leaves room for three renewals a second apart.
const minLease = 3 * time.Second

func (r *configReader) lease(n *yaml.Node, into *time.Duration) {
	r.duration(n, "replica.lease", into)
	if *into < minLease {
		r.fail(n, "lease: 10s", "replica.lease must be at least %s", minLease)
	}
}

// url reads an http or https address without credentials, such as usual.
func (r *configReader) url(n *yaml.Node, what, usual string) *url.URL {
	text := r.text(n, what)
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "":
		r.fail(n, usual, "%s must be an http or https address", what)
	case u.User != nil:
		r.fail(n, "the address without USER:PASSWORD@", "%s must not contain a secret", what)
	case u.RawQuery != "" || u.Fragment != "":
		r.fail(n, "the address up to its ? or #", "%s must have no query and no fragment", what)
	default:
		return u
	}
	return nil
}

func (r *configReader) address(n *yaml.Node, what, usual string, into *string) {
	if u := r.url(n, what, usual); u != nil {
		*into = strings.TrimSuffix(u.String(), "/")
	}
}

// secretAddress reads an address that a secret is sent to: https, except on loopback.
func (r *configReader) secretAddress(n *yaml.Node, what, usual, secret string, into *string) {
	u := r.url(n, what, usual)
	if u == nil {
		return
	}
	if *into = strings.TrimSuffix(u.String(), "/"); u.Scheme != "https" && !trust.Loopback(u.Hostname()) {
		r.fail(n, usual, "%s must be https, since the %s goes there", what, secret)
	}
}

// secretFile reads the secret in the file that n names, which may be nil: then there
// is none.
func (r *configReader) secretFile(n *yaml.Node, what, secret string) Secret {
	if n == nil {
		return Secret{}
	}
	file := r.text(n, what)
	if file == "" {
		return Secret{}
	}
	text, err := readToken(r.path(file))
	if err != nil {
		r.fail(n, secretTry(err, "write "+secret+" into it as one line, readable by its owner only"), "%s: %w", what, err)
	}
	return NewSecret(text)
}

// prometheusURL reads an address that may have a query, which goes with every
// request: Thanos's ?partial_response=false.
func (r *configReader) prometheusURL(n *yaml.Node, into *string) {
	plain := *n
	address, query, _ := strings.Cut(n.Value, "?")
	plain.Value = address
	if _, err := url.ParseQuery(query); err != nil || strings.Contains(query, "#") {
		r.fail(n, "http://127.0.0.1:9090?partial_response=false", "prometheus.url: its query cannot be read")
		return
	}
	if r.address(&plain, "prometheus.url", "http://127.0.0.1:9090", into); query != "" {
		*into += "?" + query
	}
}

func (r *configReader) externalURL(n *yaml.Node) *url.URL {
	u := r.url(n, "external_url", "https://backout.example.com")
	if u != nil && strings.Trim(u.Path, "/") != "" {
		r.fail(n, u.Scheme+"://"+u.Host, "external_url must have no path: backout is served at the root of its host")
		return nil
	}
	return u
}

func (r *configReader) duration(n *yaml.Node, what string, into *time.Duration) {
	d, err := model.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || d <= 0 {
		r.fail(n, "5s", "%s must be a duration above zero", what)
		return
	}
	*into = time.Duration(d)
}

func (r *configReader) dockerHost(n *yaml.Node) string {
	text := r.text(n, "docker.host")
	u, err := url.Parse(text)
	switch {
	case text == "":
	case err != nil || (u.Scheme != "unix" && u.Scheme != "tcp") || u.Host+u.Path == "":
		r.fail(n, "unix:///var/run/docker.sock", "docker.host must be a unix:// or tcp:// address")
	case u.User != nil:
		r.fail(n, "the address without USER:PASSWORD@", "docker.host must not contain a secret")
	}
	return text
}

func (r *configReader) project(n *yaml.Node) string {
	text := r.text(n, "a folder in docker.projects")
	if text != "" && !filepath.IsAbs(text) {
		r.fail(n, "the folder's full path, such as /srv/social-intel", "docker.projects: %q is not an absolute path", text)
	}
	return filepath.Clean(text)
}

// kubeconfig reads the path of a kubeconfig: it holds credentials, and can name a program
// that fetches them.
func (r *configReader) kubeconfig(n *yaml.Node) string {
	name := r.text(n, "kubernetes.kubeconfig")
	if name == "" {
		return ""
	}
	path := r.path(name)
	if _, err := trust.ReadSecret(path, MaxConfig); err != nil {
		r.fail(n, secretTry(err, "a kubeconfig that only its owner can read"), "kubernetes.kubeconfig: %w", err)
	}
	return path
}

func (r *configReader) dsn(n *yaml.Node) string {
	name := r.text(n, "storage.dsn_file")
	if name == "" {
		return ""
	}
	content, err := trust.ReadShared(r.path(name), maxToken)
	if err != nil {
		r.fail(n, secretTry(err, "a file that backout can read"), "storage.dsn_file: %w", err)
		return ""
	}
	dsn := strings.TrimSpace(string(content))
	if dsn == "" || strings.ContainsAny(dsn, "\r\n") {
		r.fail(n, "a file with one line, such as sqlite:/var/lib/backout/backout.db", "storage.dsn_file: %s does not hold one data source name", name)
	}
	return dsn
}

// path resolves a name against the configuration file's folder.
func (r *configReader) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.dir, name)
}
