package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation"
)

// proving is a stack on which preflights run, and the means to break it.
type proving struct {
	*stack
	t *testing.T
	// book is the playbook's text as the next round has it.
	book string
	// ahead is by how many seconds Alertmanager's clock is ahead, as seen from
	// backout; keyless: the status page refuses the key.
	ahead   atomic.Int64
	keyless atomic.Bool
	mend    []func()
}

func newProving(t *testing.T) *proving {
	t.Helper()
	p := &proving{t: t, stack: newTestStack(t, "preflight", asUsual)}
	am, err := url.Parse(p.url("alertmanager"))
	must(t, err)
	proxy := httputil.NewSingleHostReverseProxy(am)
	proxy.ModifyResponse = func(r *http.Response) error {
		r.Header.Set("Date", time.Now().Add(time.Duration(p.ahead.Load())*time.Second).UTC().Format(http.TimeFormat))
		return nil
	}
	front := httptest.NewServer(proxy)
	t.Cleanup(front.Close)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if p.keyless.Load() {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = w.Write([]byte("[]")) // who went away hears nothing
	}))
	t.Cleanup(page.Close)

	p.replace("backout.yml", p.url("alertmanager"), front.URL)
	p.write("backout.yml", p.read("backout.yml")+"statuspage: {url: "+page.URL+", page: kctbh9vrtdwd, api_key_file: page.key}\n")
	p.write("page.key", "secret of the page\n")
	p.book = p.read("playbook.yaml") + "dashboards: {Canary Health: " + p.url("prometheus") + "/-/ready}\n" +
		"preflight: {replication_lag: {query: vector(0.5)}}\n" +
		"checklist:\n  - {item: Security sign-off, owner: Security}\n"
	p.edit("above: 0.75", "above: 0.8")
	p.mend = nil // this is how it is when all is well
	p.write("playbook.yaml", p.book)
	must(t, p.generate(t.Context()))
	must(t, p.up(t.Context()))
	must(t, p.startPrometheus(t.Context()))
	must(t, p.startAlertmanager(t.Context()))
	must(t, p.startBackout(t.Context()))
	until(t, "the queries have values", func(ctx context.Context) error {
		_, ok, err := p.query(ctx, `sum(rate(si_latency_seconds_count{endpoint=~"/analytics.*"}[5s])) * 15 > 30`)
		if err == nil && !ok {
			err = fmt.Errorf("no value yet")
		}
		return err
	})
	return p
}

func (p *proving) read(name string) string {
	p.t.Helper()
	text, err := os.ReadFile(p.path(name))
	must(p.t, err)
	return string(text)
}

// write writes a file as the service's owner would.
func (p *proving) write(name, text string) {
	p.t.Helper()
	must(p.t, os.WriteFile(p.path(name), []byte(text), 0o600))
}

// replace changes a file, and takes it back with the round.
func (p *proving) replace(name, old, by string) {
	p.t.Helper()
	was := p.read(name)
	if !strings.Contains(was, old) {
		p.t.Fatalf("%s does not hold %q", name, old)
	}
	p.write(name, strings.ReplaceAll(was, old, by))
	p.mend = append(p.mend, func() { p.write(name, was) })
}

// edit changes the playbook of this round.
func (p *proving) edit(old, by string) {
	p.t.Helper()
	was := p.book
	if p.book = strings.Replace(was, old, by, 1); p.book == was {
		p.t.Fatalf("the playbook does not hold %q", old)
	}
	p.mend = append(p.mend, func() { p.book = was })
}

// post asks one of the programs for a change.
func (p *proving) post(address string, body string) error {
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+p.token["demo"])
	res, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		var said bytes.Buffer
		_, _ = said.ReadFrom(res.Body)
		return fmt.Errorf("POST %s: %s: %s", address, res.Status, said.String())
	}
	return nil
}

// reload lets every program read its files again.
func (p *proving) reload() {
	p.t.Helper()
	p.write("playbook.yaml", p.book)
	must(p.t, p.post(p.url("backout")+"/-/reload", "{}"))
	must(p.t, p.post(p.url("alertmanager")+"/-/reload", ""))
	loaded := func(ctx context.Context) (string, error) {
		text, err := fetch(ctx, p.client, p.url("prometheus")+"/metrics", "")
		_, after, _ := strings.Cut(string(text), "\nprometheus_config_last_reload_success_timestamp_seconds ")
		at, _, _ := strings.Cut(after, "\n")
		return at, err
	}
	before, err := loaded(p.t.Context())
	must(p.t, err)
	must(p.t, p.prometheus.cmd.Process.Signal(syscall.SIGHUP))
	until(p.t, "Prometheus reads its files again", func(ctx context.Context) error {
		now, err := loaded(ctx)
		if err == nil && now == before {
			err = fmt.Errorf("it has not yet")
		}
		return err
	})
}

// prove runs a preflight to its end.
func (p *proving) prove() (items map[string]remediation.PreflightItem, v remediation.PreflightView) {
	p.t.Helper()
	must(p.t, p.post(p.url("backout")+"/api/v1/preflight", `{"reason":"test"}`))
	until(p.t, "the preflight ends", func(ctx context.Context) error {
		v = remediation.PreflightView{}
		err := p.ask(ctx, "backout", "/api/v1/preflight", &v)
		if err == nil && v.Running {
			err = fmt.Errorf("%d proofs are left", v.Left)
		}
		return err
	})
	items = map[string]remediation.PreflightItem{}
	for _, it := range v.Items {
		items[it.ID] = it
	}
	return items, v
}

// rehearse runs a rehearsal to its end.
func (p *proving) rehearse() {
	p.t.Helper()
	must(p.t, p.post(p.url("backout")+"/api/v1/rehearse", `{"reason":"test"}`))
	until(p.t, "the rehearsal ends", func(ctx context.Context) error {
		v := remediation.RehearsalView{}
		err := p.ask(ctx, "backout", "/api/v1/rehearse", &v)
		if err == nil && v.Running {
			err = fmt.Errorf("%d steps are left", v.Left)
		}
		return err
	})
}

// aside counts what proofs have started and not taken away.
func (p *proving) aside(ctx context.Context) (int, error) {
	asked, err := json.Marshal(map[string][]string{"label": {"backout.preflight=" + p.path("project") + "/social-intel"}})
	if err != nil {
		return 0, err
	}
	var list []struct{ ID string }
	err = p.engine.do(ctx, http.MethodGet, "/containers/json", url.Values{"all": {"1"}, "filters": {string(asked)}}, nil, &list)
	return len(list), err
}

// defect is one thing that would keep a rollback from working, and how it shows.
type defect struct {
	name  string
	plant func(p *proving)
	item  string
	want  remediation.Status
	word  string
}

const undoScript = "migrations/U2.0.0__rollback_trends.sql"

// defects are planted round by round: those of a round do not meet.
var defects = [][]defect{
	{
		{"a flag is misspelt", func(p *proving) { p.edit("FEATURE_RECOMMENDATIONS", "FEATURE_RECOMENDATIONS") },
			"flag/FEATURE_RECOMENDATIONS/known", remediation.Fail, "does not list FEATURE_RECOMENDATIONS"},
		{"a query names no series", func(p *proving) {
			p.edit("triggers:\n", "  - {name: ghost, query: sum(si_ghost_total), unit: count}\ntriggers:\n")
		}, "query/ghost", remediation.Fail, "no series si_ghost_total"},
		{"a threshold is above the last bucket", func(p *proving) { p.edit("above: 0.8", "above: 3") },
			"buckets/p95_latency", remediation.Fail, "no quantile can exceed 2"},
		{"a dashboard is not there", func(p *proving) { p.edit("/-/ready}", "/d/none}") },
			"dashboard/canary-health", remediation.Fail, "404"},
		{"a replica is behind", func(p *proving) { p.edit("vector(0.5)", "vector(9)") }, "replication/lag", remediation.Fail, "the lag is 9 s"},
		{"the rules are an older playbook's", func(*proving) {}, "prometheus/rules", remediation.Fail, "(trigger p95_latency) differs"},
		{"a clock is an hour ahead", func(p *proving) { p.ahead.Store(3600); p.mend = append(p.mend, func() { p.ahead.Store(0) }) },
			"clock/skew", remediation.Fail, "the clock of alertmanager is"},
		{".env leads elsewhere", func(p *proving) {
			at, to := p.path("project", ".env"), p.path("env-elsewhere")
			must(p.t, os.Rename(at, to))
			must(p.t, os.Symlink(to, at))
			p.mend = append(p.mend, func() { must(p.t, os.Remove(at)); must(p.t, os.Rename(to, at)) })
		}, "flag/" + flagName + "/lasts", remediation.Fail, "outside the allowed project folders"},
		{"an undo script is missing", func(p *proving) {
			was := p.read(undoScript)
			must(p.t, os.Remove(p.path(undoScript)))
			p.mend = append(p.mend, func() { p.write(undoScript, was) })
		}, "schema/scripts", remediation.Fail, "version 2.0.0 has no undo script"},
		{"the status page refuses the key", func(p *proving) { p.keyless.Store(true); p.mend = append(p.mend, func() { p.keyless.Store(false) }) },
			"channel/statuspage", remediation.Fail, "401"},
	},
	{
		{"the previous image is gone", func(p *proving) {
			id := p.idOf(p.t, oldVersion)
			must(p.t, p.engine.do(p.t.Context(), http.MethodDelete, "/images/"+p.image+":"+oldVersion, nil, nil, nil))
			p.mend = append(p.mend, func() { p.tagAs(id, oldVersion) })
		}, "image/previous", remediation.Fail, "there is no image"},
		{"the compose file overrules .env", func(p *proving) {
			p.replace("project/docker-compose.yml", `FEATURE_ANALYTICS_ENABLED: "${FEATURE_ANALYTICS_ENABLED:-0}"`, `FEATURE_ANALYTICS_ENABLED: "1"`)
		}, "flag/" + flagName + "/lasts", remediation.Fail, "overrules .env"},
		{"snapshots have no folder", func(p *proving) {
			at := p.path("snapshots")
			must(p.t, os.RemoveAll(at))
			must(p.t, os.WriteFile(at, nil, 0o600))
			p.mend = append(p.mend, func() { must(p.t, os.Remove(at)) })
		}, "schema/snapshot", remediation.Fail, "not a directory"},
		{"the rules are not loaded", func(p *proving) { p.replace("prometheus.yml", ".rules.yml", ".none.yml") },
			"prometheus/rules", remediation.Fail, "no rule group social-intel"},
		{"Alertmanager takes the triggers elsewhere", func(p *proving) {
			p.replace("alertmanager.yml", `trigger!=""`, `trigger="elsewhere"`)
		}, "alertmanager/routes", remediation.Fail, "no drill alert of critical_security_vulnerability, error_rate, p95_latency arrived"},
		{"the playbook has other buckets than the service", func(p *proving) {
			p.edit("  - name: p95_latency\n    query: |", "  - name: p95_latency\n    buckets: [0.1, 0.8, 1]\n    query: |")
		}, "buckets/p95_latency", remediation.Fail, "the playbook has 0.1 0.8 1"},
	},
	{
		{"the previous image does not run", func(p *proving) {
			id := p.idOf(p.t, oldVersion)
			recipe := "FROM " + p.image + ":" + oldVersion + "\nENTRYPOINT [\"/none\"]\n"
			must(p.t, p.engine.build(p.t.Context(), map[string][]byte{"Dockerfile": []byte(recipe)}, nil, p.image+":"+oldVersion))
			p.mend = append(p.mend, func() { p.tagAs(id, oldVersion) })
		}, "image/runs", remediation.Fail, "start a preflight container"},
		{"a shell overruled .env", func(p *proving) {
			p.upWith(flagName + "=0.5")
			p.mend = append(p.mend, func() { p.upWith() })
		}, "flag/" + flagName + "/lasts", remediation.Fail, "a shell's variable overrules .env"},
		{"the application is a superuser", func(p *proving) {
			must(p.t, p.execute(p.t.Context(), "ALTER ROLE "+p.role()+" SUPERUSER"))
			p.mend = append(p.mend, func() { must(p.t, p.execute(p.t.Context(), "ALTER ROLE "+p.role()+" NOSUPERUSER")) })
		}, "schema/access", remediation.Fail, "is a superuser"},
		{"an undo script fails", func(p *proving) { p.replace(undoScript, "DROP TABLE trend_totals", "DROP TABLE trend_total") },
			"schema/tried", remediation.Fail, `"trend_total" does not exist`},
		{"somebody changed a rule by hand", func(p *proving) { p.replace("generated/rules/social-intel.rules.yml", "> 0.01", "> 0.02") },
			"prometheus/rules", remediation.Fail, "(trigger error_rate) differs"},
		{"a threshold lies between two buckets", func(p *proving) { p.edit("above: 0.8", "above: 0.75") },
			"buckets/p95_latency", remediation.CannotTell, "0.75 (between 0.4 and 0.8)"},
	},
	{
		{"an undo script cannot run in a transaction", func(p *proving) { p.replace(undoScript, "DROP TABLE", "VACUUM views;\nDROP TABLE") },
			"schema/tried", remediation.CannotTell, "cannot run in a transaction"},
		{"Prometheus has a rule more", func(p *proving) {
			rules := "generated/rules/social-intel.rules.yml"
			was := p.read(rules)
			p.write(rules, strings.TrimRight(was, "\n")+"\n      - record: somebody:elses\n        expr: vector(1)\n")
			p.mend = append(p.mend, func() { p.write(rules, was) })
		}, "prometheus/rules", remediation.Fail, "somebody:elses, which is not from the playbook"},
	},
}

// upWith runs compose from a shell that has more variables.
func (p *proving) upWith(shell ...string) {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), p.tools.compose, "up", "-d")
	cmd.Dir = p.path("project")
	cmd.Env = append(append(withoutFlags(os.Environ()), "DOCKER_HOST="+p.engine.host), shell...)
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("docker-compose up: %v\n%s", err, out)
	}
	must(p.t, p.untilHealthy(p.t.Context()))
}

func (p *proving) tagAs(id, version string) {
	p.t.Helper()
	must(p.t, p.engine.do(p.t.Context(), http.MethodPost, "/images/"+id+"/tag", url.Values{"repo": {p.image}, "tag": {version}}, nil, nil))
}

func TestEveryPlantedDefectIsFoundByAPreflight(t *testing.T) {
	t.Parallel()
	p := newProving(t)
	p.rehearse()
	before, err := p.engine.containers(t.Context(), p.project)
	must(t, err)
	items, v := p.prove()
	for _, it := range items {
		if it.Owner == "" && it.Status != remediation.Pass {
			t.Errorf("all is well, and %s came to %s: %s", it.ID, it.Status, it.Evidence)
		}
	}
	if len(v.Missing) != 1 || !strings.HasPrefix(v.Missing[0], "checklist/security-sign-off ") {
		t.Errorf("all is well but for one signature, and missing is %q", v.Missing)
	}
	must(t, p.post(p.url("backout")+"/api/v1/preflight/sign", `{"item":"security-sign-off","by":"Ada","reason":"report 17"}`))
	v = remediation.PreflightView{}
	must(t, p.ask(t.Context(), "backout", "/api/v1/preflight", &v))
	if len(v.Missing) != 0 {
		t.Errorf("all is well and signed for, and missing is %q", v.Missing)
	}
	after, err := p.engine.containers(t.Context(), p.project)
	must(t, err)
	if fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the containers were %v and are %v", before, after)
	}

	n := 0
	for i, round := range defects {
		for _, d := range round {
			d.plant(p)
		}
		p.reload()
		items, v := p.prove()
		for _, d := range round {
			n++
			it, ok := items[d.item]
			switch {
			case !ok || it.Status != d.want || !strings.Contains(it.Evidence, d.word):
				t.Errorf("%s: %s came to %q: %q; want %s, with %q", d.name, d.item, it.Status, it.Evidence, d.want, d.word)
			case it.Next == "":
				t.Errorf("%s: %s does not say what to do next", d.name, d.item)
			}
			if !strings.Contains(strings.Join(v.Missing, "\n"), d.item) {
				t.Errorf("%s: a rollout would start all the same; missing is %q", d.name, v.Missing)
			}
		}
		for ; len(p.mend) > 0; p.mend = p.mend[:len(p.mend)-1] {
			p.mend[len(p.mend)-1]()
		}
		if i == len(defects)-1 {
			p.reload()
		}
	}
	if n < 20 {
		t.Errorf("only %d defects were planted", n)
	}

	p.killedInTheMidst()
}

// killedInTheMidst kills backout while a container is started aside: the next start
// takes it away, and the preflight counts for nothing.
func (p *proving) killedInTheMidst() {
	p.t.Helper()
	must(p.t, p.post(p.url("backout")+"/api/v1/preflight", `{"reason":"to be killed"}`))
	must(p.t, await(p.t.Context(), generous, 10*time.Millisecond, func(ctx context.Context) error {
		n, err := p.aside(ctx)
		if err == nil && n == 0 {
			err = fmt.Errorf("nothing is started aside yet")
		}
		return err
	}))
	must(p.t, p.serve.kill())
	if n, err := p.aside(p.t.Context()); err != nil || n == 0 {
		p.t.Fatalf("%d containers are left by the kill (%v): it came too late to show anything", n, err)
	}
	must(p.t, p.startBackout(p.t.Context()))
	until(p.t, "what was started aside is taken away", func(ctx context.Context) error {
		n, err := p.aside(ctx)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d are left", n)
		}
		return err
	})
	until(p.t, "the preflight that was cut off counts as running no more", func(ctx context.Context) error {
		var v remediation.PreflightView
		err := p.ask(ctx, "backout", "/api/v1/preflight", &v)
		if err == nil && v.Running {
			err = fmt.Errorf("%d checks are left", v.Left)
		}
		return err
	})
	until(p.t, "Prometheus has scraped the new process", func(ctx context.Context) error {
		_, ok, err := p.query(ctx, `rollout_stage{service="social-intel"}`)
		if err == nil && !ok {
			err = fmt.Errorf("no value yet")
		}
		return err
	})
	items, _ := p.prove()
	for _, it := range items {
		if it.Owner == "" && it.Status != remediation.Pass {
			p.t.Errorf("all is well again, and %s came to %s: %s", it.ID, it.Status, it.Evidence)
		}
	}
}
