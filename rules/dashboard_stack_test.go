package rules_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const deploy = "../deploy"

func readYAML(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, elem ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

type composeFile struct {
	Services map[string]struct {
		Image   string
		Command []string
		Volumes []string
	}
	Volumes map[string]any
}

func TestTheComposeFileIsAWholeStackOfFilesThatAreThere(t *testing.T) {
	t.Setenv("PROJECT_DIR", "/srv/social-intel")
	t.Setenv("CONFIG_DIR", "/etc/backout")
	t.Setenv("ALERTMANAGER_SECRETS", "/etc/backout-alertmanager")
	t.Setenv("BACKOUT_VERSION", "v1")
	t.Setenv("DOCKER_GID", "999")
	out, ok := tool(t, "docker-compose", "-f", filepath.Join(deploy, "compose.yaml"), "config", "--quiet")
	if !ok {
		t.Fatal(out)
	}
	var f composeFile
	readYAML(t, readFile(t, deploy, "compose.yaml"), &f)
	for _, name := range []string{"backout", "prometheus", "alertmanager", "grafana"} {
		if f.Services[name].Image == "" {
			t.Errorf("there is no %s", name)
		}
	}
	mounted := map[string]string{}
	for name, s := range f.Services {
		for _, v := range s.Volumes {
			from, to, _ := strings.Cut(v, ":")
			if strings.HasPrefix(from, ".") {
				if _, err := os.Stat(filepath.Join(deploy, from)); err != nil {
					t.Errorf("%s mounts what is not there: %v", name, err)
				}
				mounted[name+" "+strings.TrimSuffix(to, ":ro")] = from
			}
		}
	}
	if mounted["prometheus /etc/prometheus/rules"] != "../rules" || mounted["grafana /etc/grafana/provisioning"] != "./grafana/provisioning" {
		t.Errorf("mounted: %v", mounted)
	}
	var provider struct {
		Providers []struct {
			Type    string
			Options struct{ Path string }
		}
	}
	readYAML(t, readFile(t, deploy, "grafana/provisioning/dashboards/backout.yaml"), &provider)
	if p := provider.Providers; len(p) != 1 || p[0].Type != "file" || mounted["grafana "+p[0].Options.Path] != "./grafana/dashboards" {
		t.Errorf("the provider %+v does not read the generated dashboards of %v", p, mounted)
	}
	var sources struct {
		Datasources []struct{ Type, URL string }
	}
	readYAML(t, readFile(t, deploy, "grafana/provisioning/datasources/prometheus.yaml"), &sources)
	if d := sources.Datasources; len(d) != 1 || d[0].Type != "prometheus" ||
		!slices.Contains(f.Services["prometheus"].Command, "--web.listen-address="+strings.TrimPrefix(d[0].URL, "http://")) {
		t.Errorf("the datasource %+v is not the Prometheus of the stack", d)
	}
}

func TestPrometheusAndAlertmanagerTakeTheStacksConfiguration(t *testing.T) {
	if out, ok := tool(t, "amtool", "check-config", filepath.Join(deploy, "alertmanager.yml")); !ok {
		t.Error(out)
	}
	// As in the container: the rules are beside the configuration.
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "rules"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"prometheus.yml": readFile(t, deploy, "prometheus.yml"), "rules/social-intel.rules.yml": readFile(t, "social-intel.rules.yml"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, promtool := range promtools {
		out, ok := tool(t, promtool, "check", "config", filepath.Join(dir, "prometheus.yml"))
		if !ok || !strings.Contains(out, "1 rule files found") {
			t.Errorf("%s: %s", promtool, out)
		}
	}
}

func TestTheStackScrapesEachJobThatThePlaybookMeans(t *testing.T) {
	var f struct {
		ScrapeConfigs []struct {
			JobName string `yaml:"job_name"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, readFile(t, deploy, "prometheus.yml"), &f)
	var jobs []string
	for _, s := range f.ScrapeConfigs {
		jobs = append(jobs, s.JobName)
	}
	pb := defaultPlaybook(t)
	want := []string{pb.Job, "backout"}
	job := regexp.MustCompile(`job="([^"]+)"`)
	for _, s := range pb.Selectors {
		for _, m := range job.FindAllStringSubmatch(s, -1) {
			want = append(want, m[1])
		}
	}
	for _, j := range want {
		if !slices.Contains(jobs, j) {
			t.Errorf("nothing scrapes the job %s: only %v", j, jobs)
		}
	}
	if len(want) < 6 {
		t.Errorf("the playbook means only %v", want)
	}
}
