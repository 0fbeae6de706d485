package kubernetes_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/deploy/kube"
	"github.com/locotoki/backout/deploy/kube/kubetest"
	"github.com/locotoki/backout/remediation/action"
	"github.com/locotoki/backout/rules"
)

type object = map[string]any

// operatorModule has the CRDs of the Prometheus Operator.
const operatorModule = "github.com/prometheus-operator/prometheus-operator@v0.85.0"

// applyCRDs makes the operator's kinds known to the API server.
func applyCRDs(t *testing.T, l *kubetest.Lab) {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", operatorModule)
	cmd.Dir = t.TempDir() // outside of a module
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", operatorModule, err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"prometheusrules", "alertmanagerconfigs"} {
		crd, err := os.ReadFile(filepath.Join(module.Dir, "example", "prometheus-operator-crd", "monitoring.coreos.com_"+kind+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		l.Apply(string(crd))
	}
	l.Eventually("the operator's kinds are known", func() error {
		for _, kind := range []object{
			{"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": object{"name": "x"}},
			{"apiVersion": "monitoring.coreos.com/v1alpha1", "kind": "AlertmanagerConfig", "metadata": object{"name": "x"}},
		} {
			path, err := l.Path(t.Context(), l.Namespace, kind)
			if err == nil {
				err = l.Get(t.Context(), filepath.Dir(path), nil)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func playbook(t *testing.T) *alerts.Playbook {
	t.Helper()
	var kinds []alerts.ActionKind
	for _, k := range action.Kinds(action.Tools{}) {
		kinds = append(kinds, k)
	}
	pb, err := alerts.Default(kinds)
	if err != nil {
		t.Fatal(err)
	}
	return pb
}

// objects generates the two objects of the built-in playbook.
func objects(t *testing.T, namespace, webhook string) (rule, route []byte) {
	t.Helper()
	pb := playbook(t)
	files, err := rules.Settings{WebhookURL: webhook, Objects: &rules.Objects{Namespace: namespace, Labels: map[string]string{"release": "kps"}}}.Generate(pb)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		switch f.Name {
		case "rules/social-intel.prometheusrule.yml":
			rule = f.Content
		case "rules/social-intel.alertmanagerconfig.yml":
			route = f.Content
		}
	}
	return rule, route
}

func TestTheOperatorsKindsTakeTheGeneratedObjects(t *testing.T) {
	t.Parallel()
	l := kubetest.New(t)
	applyCRDs(t, l)
	rule, route := objects(t, l.Namespace, "")
	l.Apply(string(rule))
	l.Apply(string(route))
	for mistake, wrong := range map[string]string{
		"a switch in words":      strings.Replace(string(route), "sendResolved: true", "sendResolved: maybe", 1),
		"an interval in letters": strings.Replace(string(rule), "interval: 15s", "interval: often", 1),
	} {
		if err := l.Client.Apply(t.Context(), l.Namespace, []byte(wrong)); kube.Code(err) == 0 {
			t.Errorf("%s: %v", mistake, err)
		}
	}
	// The schema only knows the route at the top: each of those below takes its place.
	var o object
	if err := yaml.Unmarshal(route, &o); err != nil {
		t.Fatal(err)
	}
	var each func(r object)
	seen := 0
	each = func(r object) {
		below, _ := r["routes"].([]any)
		delete(r, "routes")
		o["spec"].(object)["route"] = r
		l.Put(o)
		seen++
		for _, b := range below {
			each(b.(object))
		}
	}
	each(o["spec"].(object)["route"].(object))
	if seen != 13 {
		t.Errorf("%d routes", seen)
	}
	o["spec"].(object)["route"] = object{"receiver": "nobody", "group_wait": "0s"}
	raw, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Client.Apply(t.Context(), l.Namespace, raw); err == nil {
		t.Error("a route with an unknown key is accepted")
	}
}

// asOperator is Alertmanager's configuration that the Prometheus Operator makes of an AlertmanagerConfig, with the
// secrets that it reads (pkg/alertmanager/amcfg.go): every name has NAMESPACE/NAME/ before it; the top route comes first
// below the Alertmanager's own, continues, and matches the label namespace unless the strategy is None.
func asOperator(t *testing.T, manifest []byte, secrets map[string]string) []byte {
	t.Helper()
	var o struct {
		Metadata struct{ Name, Namespace string }
		Spec     object
	}
	if err := yaml.Unmarshal(manifest, &o); err != nil {
		t.Fatal(err)
	}
	prefix := o.Metadata.Namespace + "/" + o.Metadata.Name + "/"
	var convert func(key string, v any) any
	convert = func(key string, v any) any {
		switch v := v.(type) {
		case []any:
			var out []any
			for _, item := range v {
				if name, ok := item.(string); ok && key == "muteTimeIntervals" {
					item = prefix + name
				}
				out = append(out, convert(key, item))
			}
			return out
		case object:
			if v["matchType"] != nil {
				return fmt.Sprintf("%s%s%q", v["name"], v["matchType"], v["value"])
			}
			if v["key"] != nil {
				return secrets[v["key"].(string)]
			}
			out := object{}
			for k, value := range v {
				if name, ok := value.(string); ok && (k == "receiver" || k == "name") {
					value = prefix + name
				}
				out[snake(k)] = convert(k, value)
			}
			return out
		}
		return v
	}
	config := convert("", o.Spec).(object)
	route := config["route"].(object)
	route["continue"] = true
	route["matchers"] = []any{fmt.Sprintf("namespace=%q", o.Metadata.Namespace)} // ours has none at the top
	config["route"] = object{"receiver": "null", "routes": []any{route}}
	config["receivers"] = append(config["receivers"].([]any), object{"name": "null"})
	out, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// snake makes api_url of apiURL.
func snake(key string) string {
	var b strings.Builder
	lower := false
	for _, r := range key {
		if unicode.IsUpper(r) && lower {
			b.WriteByte('_')
		}
		lower = unicode.IsLower(r)
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// receivers asks amtool where an alert goes.
func receivers(t *testing.T, config string, labels map[string]string) []string {
	t.Helper()
	args := []string{"config", "routes", "test", "--config.file=" + config}
	for k, v := range labels {
		args = append(args, k+"="+v)
	}
	out, err := exec.Command("amtool", args...).Output()
	if err != nil {
		t.Fatalf("amtool %q: %v", args, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), ",")
}

func write(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "alertmanager.yml")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var secrets = map[string]string{"am.token": "am-token-of-16-characters", "slack.url": "https://slack.example.com/hook", "pagerduty.key": "key"}

func TestEachAlertGoesThroughTheOperatorToThoseWhomThePlainFileNames(t *testing.T) {
	t.Parallel()
	pb := playbook(t)
	files, err := rules.Settings{}.Deployed(pb)
	if err != nil {
		t.Fatal(err)
	}
	plain := write(t, files[slices.IndexFunc(files, func(f rules.File) bool { return f.Name == "deploy/alertmanager.yml" })].Content)
	rule, route := objects(t, "shop", "")
	converted := write(t, asOperator(t, route, secrets))
	var o struct {
		Spec struct {
			Groups []struct {
				Rules []struct {
					Alert  string
					Labels map[string]string
				}
			}
		}
	}
	if err := yaml.Unmarshal(rule, &o); err != nil {
		t.Fatal(err)
	}
	const prefix = "shop/backout-social-intel/"
	kinds := map[string]bool{}
	for _, g := range o.Spec.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" {
				continue
			}
			labels := map[string]string{"alertname": r.Alert}
			for k, v := range r.Labels {
				if !strings.Contains(v, "{{") {
					labels[k] = v
				}
			}
			want := receivers(t, plain, labels)
			kinds[strings.Join(want, " ")] = true
			for i := range want {
				want[i] = prefix + want[i]
			}
			// Only the operator's top route continues: the Alertmanager's own comes after it.
			if got := receivers(t, converted, labels); !slices.Equal(got, want) {
				t.Errorf("%v goes to %q, want %q", labels, got, want)
			}
			delete(labels, "namespace")
			if got := receivers(t, converted, labels); !slices.Equal(got, []string{"null"}) {
				t.Errorf("without its namespace, %v goes to %q", labels, got)
			}
		}
	}
	if len(kinds) < 3 {
		t.Errorf("the alerts go to %v only", kinds)
	}
	for _, service := range []string{"other", ""} {
		if got := receivers(t, converted, map[string]string{"alertname": "KubePodCrashLooping", "namespace": "shop", "severity": "critical", "service": service}); !slices.Equal(got, []string{prefix + "nobody"}) {
			t.Errorf("an alert of service %q in the namespace goes to %q", service, got)
		}
	}
}

func TestAnAlertmanagerOfTheOperatorPostsATriggerToBackout(t *testing.T) {
	t.Parallel()
	type post struct {
		token string
		body  []byte
	}
	posts := make(chan post, 10)
	backout := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		posts <- post{r.Header.Get("Authorization"), body}
	}))
	defer backout.Close()
	_, route := objects(t, "shop", backout.URL)
	address := startAlertmanager(t, write(t, asOperator(t, route, secrets)))
	alert, err := json.Marshal([]object{
		{"labels": object{"alertname": "RollbackErrorRate", "service": "social-intel", "trigger": "error_rate", "severity": "critical", "namespace": "shop"}},
		{"labels": object{"alertname": "RollbackErrorRate", "service": "social-intel", "trigger": "error_rate", "severity": "critical"}}, // of nobody's namespace
	})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: time.Minute}
	resp, err := client.Post(address+"/api/v2/alerts", "application/json", bytes.NewReader(alert))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	select {
	case p := <-posts:
		if p.token != "Bearer "+secrets["am.token"] {
			t.Errorf("Authorization is %q", p.token)
		}
		var n struct {
			Alerts []struct{ Labels map[string]string }
		}
		if err := json.Unmarshal(p.body, &n); err != nil || len(n.Alerts) != 1 || n.Alerts[0].Labels["namespace"] != "shop" || n.Alerts[0].Labels["trigger"] != "error_rate" {
			t.Errorf("posted %s (%v)", p.body, err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Alertmanager posted nothing")
	}
}

// startAlertmanager returns the address of one that is ready.
func startAlertmanager(t *testing.T, config string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command("prometheus-alertmanager", "--config.file="+config, "--storage.path="+t.TempDir(), "--web.listen-address="+address, "--cluster.listen-address=")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	client := &http.Client{Timeout: 10 * time.Second}
	for limit := time.After(time.Minute); ; {
		select {
		case <-limit:
			t.Fatalf("Alertmanager is not ready:\n%s", out.String())
		case <-tick.C:
			resp, err := client.Get("http://" + address + "/-/ready")
			if err != nil {
				continue
			}
			ok := resp.StatusCode == http.StatusOK
			if resp.Body.Close(); ok {
				return "http://" + address
			}
		}
	}
}
