package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// folder writes files into a new folder; token files have mode 0600.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func load(t *testing.T, files map[string]string) (*Config, string, error) {
	t.Helper()
	path := filepath.Join(folder(t, files), "backout.yml")
	cfg, err := Load(path)
	return cfg, path, err
}

func TestTheWholeConfigurationIsRead(t *testing.T) {
	cfg, _, err := load(t, map[string]string{
		"backout.yml": `
prometheus:   {url: http://prom.example.com:9090/prom/, timeout: 1m30s}
alertmanager: {url: https://am.example.com}
docker:       {host: tcp://127.0.0.1:2375, projects: [/srv/social-intel/, /srv/other]}
external_url: https://backout.example.com
tokens:
  - {name: am,    role: alertmanager, file: am.token}
  - {name: eye,   role: viewer, file: eye.token}
  - {name: oncall, role: commander,   file: oncall.token}
storage:      {dsn_file: dsn}
snapshots:    {dir: /var/lib/backout/snapshots}
statuspage:   {url: http://127.0.0.1:8080/, page: kctbh9vrtdwd, api_key_file: page.key}
launchdarkly: {url: https://app.launchdarkly.us/, token_file: flags.token}
unleash: {url: https://eu.example.com/shop/, token_file: flags.token}
`, "flags.token": "flags-secret\n", "page.key": "page-secret\n", "am.token": "a-token-of-16-by\n", "eye.token": "b-token-of-16-by", "oncall.token": " c-token-of-16-by \r\n", "dsn": "sqlite:/var/lib/backout.db\n"})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.PrometheusURL != "http://prom.example.com:9090/prom" || cfg.PrometheusTimeout != 90*time.Second || cfg.AlertmanagerURL != "https://am.example.com" {
		t.Errorf("neighbours: %+v", cfg)
	}
	if cfg.DockerHost != "tcp://127.0.0.1:2375" || strings.Join(cfg.DockerProjects, " ") != "/srv/social-intel /srv/other" {
		t.Errorf("docker: %+v", cfg)
	}
	if cfg.ExternalURL == nil || cfg.ExternalURL.Host != "backout.example.com" || cfg.DSN != "sqlite:/var/lib/backout.db" || cfg.SnapshotDir != "/var/lib/backout/snapshots" {
		t.Errorf("the rest: %+v", cfg)
	}
	if want := (Statuspage{URL: "http://127.0.0.1:8080", Page: "kctbh9vrtdwd", Key: NewSecret("page-secret")}); cfg.Statuspage == nil || *cfg.Statuspage != want {
		t.Errorf("status page: %+v", cfg.Statuspage)
	}
	if want := (LaunchDarkly{URL: "https://app.launchdarkly.us", Token: NewSecret("flags-secret")}); cfg.LaunchDarkly == nil || *cfg.LaunchDarkly != want {
		t.Errorf("LaunchDarkly: %+v", cfg.LaunchDarkly)
	}
	if want := (Unleash{URL: "https://eu.example.com/shop", Token: NewSecret("flags-secret")}); cfg.Unleash == nil || *cfg.Unleash != want {
		t.Errorf("Unleash: %+v", cfg.Unleash)
	}
	for _, shown := range []string{fmt.Sprintf("%v %+v %#v", cfg.LaunchDarkly, *cfg.LaunchDarkly, *cfg.LaunchDarkly), fmt.Sprint(cfg.Statuspage), fmt.Sprintf("%+v %#v %s %x", *cfg.Statuspage, *cfg.Statuspage, cfg.Statuspage.Key, cfg.Statuspage.Key)} {
		if strings.Contains(shown, "page-secret") || strings.Contains(shown, "flags-secret") || strings.Contains(shown, fmt.Sprintf("%x", "page-secret")) {
			t.Errorf("the key is shown: %s", shown)
		}
	}
	var tokens []string
	for i, secret := range []string{"a-token-of-16-by", "b-token-of-16-by", "c-token-of-16-by"} {
		tok := cfg.Tokens[i]
		tokens = append(tokens, tok.Name+" "+string(tok.Role))
		same, err := NewToken(tok.Name, tok.Role, secret)
		if err != nil || same != tok {
			t.Errorf("token %s is not %q: %v", tok.Name, secret, err)
		}
	}
	if got := strings.Join(tokens, ", "); got != "am alertmanager, eye viewer, oncall commander" {
		t.Errorf("tokens: %s", got)
	}
}

func TestEveryKeyIsOptional(t *testing.T) {
	for name, content := range map[string]string{
		"empty":         "",
		"a comment":     "# nothing yet\n",
		"a document":    "---\n",
		"null":          "null\n",
		"empty objects": "prometheus: {}\nalertmanager: {}\ndocker: {}\ntokens: []\nstorage: {}\n",
		"nulls":         "prometheus:\nalertmanager:\ndocker: {projects: }\nexternal_url:\ntokens:\nstorage: {dsn_file: }\n",
	} {
		cfg, _, err := load(t, map[string]string{"backout.yml": content})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if cfg.PrometheusURL != "http://127.0.0.1:9090" || cfg.PrometheusTimeout != 5*time.Second || cfg.AlertmanagerURL != "http://127.0.0.1:9093" ||
			cfg.DockerHost != "unix:///var/run/docker.sock" || cfg.DockerProjects != nil || cfg.ExternalURL != nil || cfg.Tokens != nil || cfg.DSN != "" {
			t.Errorf("%s: %+v", name, cfg)
		}
	}
}

func TestAMistakeIsReportedWithItsLineAndWhatToTry(t *testing.T) {
	const tokens = "tokens:\n  - {name: am, role: alertmanager, file: am.token}\n"
	for name, tc := range map[string]struct {
		content string
		line    string
		words   string
		try     string
	}{
		"unknown key":          {"\nprometheuz: {}", "2", `unknown key "prometheuz" in the configuration`, "one of prometheus, alertmanager, docker, kubernetes, external_url, tokens, storage, replica, limits, snapshots, statuspage"},
		"unknown inner key":    {"prometheus:\n  uri: x", "2", `unknown key "uri" in prometheus`, "one of url, timeout"},
		"unknown token key":    {"tokens:\n  - {name: a, role: viewer, secret: x}", "2", `unknown key "secret" in a token`, "one of name, role, file"},
		"key twice":            {"docker: {}\ndocker: {}", "2", `key "docker" is given twice`, "one of them only"},
		"not YAML":             {"a: b\n  c: [", "2", "not YAML", ""},
		"a list":               {"- a", "1", "the configuration must be a mapping", "keys and values"},
		"a scalar in place":    {"prometheus: http://x", "1", "prometheus must be a mapping", "keys and values"},
		"half a document":      {"docker: {}\n---\n[", "3", "not YAML", ""},
		"two documents":        {"docker: {}\n---\ndocker: {}", "2", "a second YAML document", "one document"},
		"no url":               {"prometheus: {url: localhost:9090}", "1", "prometheus.url must be an http or https address", "http://127.0.0.1:9090"},
		"another scheme":       {"alertmanager: {url: 'ftp://x'}", "1", "alertmanager.url must be an http or https address", "http://127.0.0.1:9093"},
		"a password in a url":  {"prometheus: {url: 'http://u:hunter2@x'}", "1", "prometheus.url must not contain a secret", "without USER:PASSWORD@"},
		"a query in a url":     {"alertmanager: {url: 'http://x/?a=b'}", "1", "no query", "up to its ?"},
		"half a query":         {"prometheus: {url: 'http://x/?a=%zz'}", "1", "its query cannot be read", "?partial_response=false"},
		"a short token":        {"tokens:\n  - {name: a, role: viewer, file: short.token}", "2", "short.token has 15 characters; at least 16 are needed", "openssl rand -hex 32 > "},
		"one character":        {"tokens:\n  - {name: a, role: viewer, file: x.token}", "2", "x.token has 1 character; at least 16 are needed", ""},
		"a url that is a list": {"prometheus: {url: [http://x]}", "1", "prometheus.url must be a non-empty text", ""},
		"no duration":          {"prometheus: {timeout: 5}", "1", "prometheus.timeout must be a duration above zero", "5s"},
		"no time at all":       {"prometheus: {timeout: 0s}", "1", "prometheus.timeout must be a duration above zero", "5s"},
		"docker host":          {"docker: {host: /var/run/docker.sock}", "1", "docker.host must be a unix:// or tcp:// address", "unix:///var/run/docker.sock"},
		"relative project":     {"docker:\n  projects:\n    - srv/x", "3", `"srv/x" is not an absolute path`, "full path"},
		"empty project":        {"docker: {projects: ['']}", "1", "a folder in docker.projects must be a non-empty text", ""},
		"projects is a text":   {"docker: {projects: /srv}", "1", "docker.projects must be a list", "[...]"},
		"a path in external":   {"external_url: https://x.example.com/backout", "1", "external_url must have no path", "https://x.example.com"},
		"tokens is a mapping":  {"tokens: {name: a}", "1", "tokens must be a list", "[...]"},
		"a token is a text":    {"tokens: [a]", "1", "a token must be a mapping", ""},
		"half a token":         {"tokens:\n  - {name: a, role: viewer}", "2", "a token needs name, role and file", "{name: oncall"},
		"an empty token entry": {"tokens:\n  - {}", "2", "a token needs name, role and file", "{name: oncall"},
		"unknown role":         {"tokens:\n  - {name: a, role: admin, file: am.token}", "2", `unknown role "admin"`, "alertmanager, viewer or commander"},
		"a name with a colon":  {"tokens:\n  - {name: 'a:b', role: viewer, file: am.token}", "2", `invalid token name "a:b"`, "letters, digits"},
		"the engine's name":    {"tokens:\n  - {name: engine, role: commander, file: am.token}", "2", "reserved for backout in the audit log", "another name"},
		"alertmanager's name":  {"tokens:\n  - {name: alertmanager, role: commander, file: am.token}", "2", "reserved for backout in the audit log", "another name"},
		"name twice":           {tokens + "  - {name: am, role: viewer, file: eye.token}", "3", `the token name "am" is already in line 2`, "a name of its own"},
		"secret twice":         {tokens + "  - {name: eye, role: viewer, file: am.token}", "3", `tokens "am" and "eye" are the same secret`, "a secret of its own"},
		"no token file":        {"tokens:\n  - {name: a, role: viewer, file: none.token}", "2", "no such file", "readable by its owner only"},
		"empty token file":     {"tokens:\n  - {name: a, role: viewer, file: empty.token}", "2", "empty.token is empty", "one line"},
		"two lines":            {"tokens:\n  - {name: a, role: viewer, file: two.token}", "2", "more than one line", "one line"},
		"a folder":             {"tokens:\n  - {name: a, role: viewer, file: .}", "2", "is not a regular file", ""},
		"a huge token":         {"tokens:\n  - {name: a, role: viewer, file: huge.token}", "2", "larger than 4096 bytes", ""},
		"no dsn file":          {"storage: {dsn_file: none}", "1", "no such file", "a file that backout can read"},
		"half a status page":   {"statuspage: {page: abc}", "1", "statuspage needs page and api_key_file", "{page: kctbh9vrtdwd"},
		"an odd page":          {"statuspage: {page: a/b, api_key_file: am.token}", "1", `invalid page ID "a/b"`, "kctbh9vrtdwd"},
		"a page in the clear":  {"statuspage: {url: 'http://page.example.com', page: abc, api_key_file: am.token}", "1", "statuspage.url must be https", "https://api.statuspage.io"},
		"a page's password":    {"statuspage: {url: 'https://u:hunter2@x', page: abc, api_key_file: am.token}", "1", "statuspage.url must not contain a secret", "without USER:PASSWORD@"},
		"no key file":          {"statuspage: {page: abc, api_key_file: none}", "1", "no such file", "readable by its owner only"},
		"two keys":             {"statuspage: {page: abc, api_key_file: two.token}", "1", "more than one line", "one line"},
		"a key of no name":     {"statuspage: {page: abc, api_key: am.token}", "1", `unknown key "api_key" in statuspage`, "one of url, page, api_key_file"},
		"no token for flags":   {"launchdarkly: {}", "1", "launchdarkly needs token_file", "{token_file: launchdarkly.token}"},
		"no Unleash server":    {"unleash: {token_file: am.token}", "1", "unleash needs url and token_file", "{url: https://unleash.example.com, token_file: unleash.token}"},
		"no Unleash token":     {"unleash: {url: 'https://unleash.example.com'}", "1", "unleash needs url and token_file", "{url: https://unleash.example.com, token_file: unleash.token}"},
		"Unleash's API":        {"unleash: {url: 'https://unleash.example.com/shop/api/', token_file: am.token}", "1", "unleash.url ends in /api", "https://unleash.example.com/shop"},
		"Unleash in the clear": {"unleash: {url: 'http://unleash.example.com', token_file: am.token}", "1", "unleash.url must be https", "https://unleash.example.com"},
		"flags in the clear":   {"launchdarkly: {url: 'http://ld.example.com', token_file: am.token}", "1", "launchdarkly.url must be https", "https://app.launchdarkly.com"},
		"no kubeconfig":        {"kubernetes: {kubeconfig: none}", "1", "kubernetes.kubeconfig: open", "a kubeconfig that only its owner can read"},
		"a kubeconfig's key":   {"kubernetes: {context: a}", "1", `unknown key "context" in kubernetes`, "one of kubeconfig"},
		"no file for flags":    {"launchdarkly: {token_file: none}", "1", "launchdarkly.token_file: open", "readable by its owner only"},
		"a token in the file":  {"launchdarkly: {token: api-123}", "1", `unknown key "token" in launchdarkly`, "one of url, token_file"},
		"empty dsn file":       {"storage: {dsn_file: empty.token}", "1", "does not hold one data source name", "sqlite:"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, path, err := load(t, map[string]string{"backout.yml": tc.content, "am.token": "a-secret-a-secret", "eye.token": "e-secret-e-secret", "short.token": "fifteen-letters", "x.token": "x", "empty.token": " \n", "two.token": "a-secret\nb-secret", "huge.token": strings.Repeat("x", 5000)})
			if err == nil || cfg != nil {
				t.Fatalf("no mistake was found: %+v", cfg)
			}
			text := err.Error()
			if !strings.HasPrefix(text, path+":"+tc.line+": ") || !strings.Contains(text, tc.words) || !strings.Contains(text, tc.try) || (tc.try != "" && !strings.Contains(text, "; try: ")) {
				t.Errorf("said %q", text)
			}
			if strings.Contains(text, "\n") {
				t.Errorf("one mistake was reported as several: %q", text)
			}
			if strings.Contains(text, "-secret") || strings.Contains(text, "hunter2") {
				t.Errorf("a secret is told: %q", text)
			}
		})
	}
}

func TestAllMistakesAreReportedTogetherInTheirOrder(t *testing.T) {
	_, path, err := load(t, map[string]string{"backout.yml": `external_url: nowhere
tokens:
  - {name: a, role: admin, file: x, what: y}
  - {name: b, role: viewer, file: none}
  - {name: b, role: viewer, file: none}
docker: {host: x}
nonsense: 1
`})
	if err == nil {
		t.Fatal("no mistake was found")
	}
	var lines []string
	for _, l := range strings.Split(err.Error(), "\n") {
		lines = append(lines, strings.TrimPrefix(strings.SplitN(l, ": ", 2)[0], path+":"))
	}
	if got := strings.Join(lines, " "); got != "1 3 3 4 5 5 6 7" {
		t.Errorf("lines %s of:\n%v", got, err)
	}
}

func TestATokenFileThatOthersHaveAccessToIsRefused(t *testing.T) {
	for mode, refused := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: true, 0o604: true, 0o620: true, 0o602: true, 0o644: true} {
		dir := folder(t, map[string]string{"backout.yml": "tokens:\n  - {name: a, role: viewer, file: a.token}", "a.token": "a-secret-a-secret"})
		if err := os.Chmod(filepath.Join(dir, "a.token"), mode); err != nil {
			t.Fatal(err)
		}
		_, err := Load(filepath.Join(dir, "backout.yml"))
		keyed := filepath.Join(dir, "keyed.yml")
		if werr := os.WriteFile(keyed, []byte("statuspage: {page: abc, api_key_file: a.token}"), 0o600); werr != nil {
			t.Fatal(werr)
		}
		flags := filepath.Join(dir, "flags.yml")
		if werr := os.WriteFile(flags, []byte("launchdarkly: {token_file: a.token}"), 0o600); werr != nil {
			t.Fatal(werr)
		}
		if _, ferr := Load(flags); refused != (ferr != nil) || refused && !strings.Contains(ferr.Error(), "try: chmod 600 ") {
			t.Errorf("an access token with mode %o: %v", mode, ferr)
		}
		if _, kerr := Load(keyed); refused != (kerr != nil) || refused && !strings.Contains(kerr.Error(), "try: chmod 600 ") {
			t.Errorf("an API key with mode %o: %v", mode, kerr)
		}
		if refused != (err != nil) {
			t.Errorf("mode %o: %v", mode, err)
		}
		if err != nil && !strings.Contains(err.Error(), "try: chmod 600 "+filepath.Join(dir, "a.token")) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestATokenFileMayHaveAFullPathAndAnAliasedEntry(t *testing.T) {
	dir := folder(t, map[string]string{"elsewhere.token": "a-token-of-16-by"})
	cfg, _, err := load(t, map[string]string{"backout.yml": "tokens:\n  - {name: a, role: &r viewer, file: " + filepath.Join(dir, "elsewhere.token") + "}\n  - {name: b, role: *r, file: b.token}", "b.token": "b-token-of-16-by"})
	if err != nil || len(cfg.Tokens) != 2 || cfg.Tokens[1].Role != Viewer {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func TestAMissingConfigurationIsAnError(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yml")); err == nil || !strings.Contains(err.Error(), "none.yml") {
		t.Errorf("said %v", err)
	}
}

func TestANamedPipeIsRefusedAndNotWaitedFor(t *testing.T) {
	dir := folder(t, map[string]string{"backout.yml": "tokens:\n  - {name: a, role: viewer, file: pipe}"})
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(filepath.Join(dir, "backout.yml")); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("said %v", err)
	}
}
