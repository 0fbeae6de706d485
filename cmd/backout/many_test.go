package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/rules"
)

// crowd is one serve with many services, and what is around it: a Prometheus in which a
// service breaches while its flag is on, and the flags of all services.
type crowd struct {
	t     testing.TB
	dir   string
	n     int
	flags *flagServers
	args  []string
	cmd   *exec.Cmd
	url   string
	ready time.Duration
}

// serviceName is a service of a crowd.
func serviceName(i int) string { return fmt.Sprintf("svc-%04d", i) }

// anyService matches one.
var anyService = regexp.MustCompile(`svc-\d{4}`)

// crowdPlaybook is the playbook of a service of a crowd.
func crowdPlaybook(service string) string {
	return strings.NewReplacer("shop", service, "requests_total{", `requests_total{job="`+service+`",`, "requests_total[", `requests_total{job="`+service+`"}[`,
		"blast_radius: 6/10m", "blast_radius: 1000/10m").Replace(replicaPlaybook)
}

// newCrowd writes n playbooks and the configuration; extra is added to that.
func newCrowd(t testing.TB, n int, extra string) *crowd {
	t.Helper()
	c := &crowd{t: t, dir: t.TempDir(), n: n, flags: &flagServers{}}
	prometheus := httptest.NewServer(c.prometheus())
	t.Cleanup(prometheus.Close)
	flags := httptest.NewServer(c.flags)
	t.Cleanup(flags.Close)
	secretFile(t, filepath.Join(c.dir, "ld.token"), "api-0123456789abcdef0123456789abcdef\n")
	secretFile(t, filepath.Join(c.dir, "oncall.token"), "0123456789abcdef0123456789abcdef\n")
	secretFile(t, filepath.Join(c.dir, "backout.yml"), fmt.Sprintf(`prometheus: {url: %q}
alertmanager: {url: http://127.0.0.1:1}
launchdarkly: {url: %q, token_file: ld.token}
tokens: [{name: oncall, role: commander, file: oncall.token}, {name: am, role: alertmanager, file: ld.token}]
%s`, prometheus.URL, flags.URL, extra))
	c.args = append(c.args, "--config.file="+filepath.Join(c.dir, "backout.yml"))
	for i := range n {
		name := filepath.Join(c.dir, serviceName(i)+".yaml")
		secretFile(t, name, crowdPlaybook(serviceName(i)))
		c.args = append(c.args, "--playbook.file="+name)
	}
	return c
}

func (c *crowd) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// prometheus answers the rules' expressions.
func (c *crowd) prometheus() http.HandlerFunc {
	kinds, err := actionKinds(config.Default(), nil, slog.New(slog.DiscardHandler))
	c.must(err)
	pb, err := alerts.Parse("one.yaml", []byte(crowdPlaybook(serviceName(0))), playbookKinds(kinds.list))
	c.must(err)
	c.must(kinds.Close())
	expr, err := rules.ExpressionsOf(pb)
	c.must(err)
	x := expr.Triggers["error_rate"]
	return func(w http.ResponseWriter, r *http.Request) {
		value, q := "1", r.FormValue("query")
		service := anyService.FindString(q)
		switch strings.ReplaceAll(q, service, serviceName(0)) {
		case expr.Age:
			value = "0"
		case x.Value, x.Recovery:
			value = "0"
			if c.flags.of(service).isOn() {
				value = "0.5"
			}
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,%q]}]}}`, time.Now().Unix(), value) //nolint:errcheck // who asked may be gone
	}
}

// flagServers is a flagServer for each service.
type flagServers struct {
	mu  sync.Mutex
	all map[string]*flagServer
}

func (f *flagServers) of(service string) *flagServer {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = map[string]*flagServer{}
	}
	if f.all[service] == nil {
		f.all[service] = &flagServer{on: true, version: 1}
	}
	return f.all[service]
}

// ServeHTTP implements http.Handler.
func (f *flagServers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.of(anyService.FindString(r.URL.Path)).ServeHTTP(w, r)
}

func (f *flagServer) isOn() bool { on, _ := f.state(); return on }

// start starts serve and waits until it is ready.
func (c *crowd) start(mode string) {
	c.t.Helper()
	log, err := os.CreateTemp(c.dir, "*.log")
	c.must(err)
	c.cmd = exec.Command(program(c.t), append([]string{"serve", "--storage.dsn=sqlite:" + filepath.Join(c.dir, "backout.db"), "--mode=" + mode,
		"--web.listen-address=127.0.0.1:0", "--web.status-listen-address="}, c.args...)...)
	c.cmd.Stderr = log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	c.must(c.cmd.Start())
	c.must(log.Close())
	c.t.Cleanup(c.stop)
	ready := regexp.MustCompile(`msg="backout is ready" address=(\S+)`)
	for {
		text, err := os.ReadFile(log.Name())
		c.must(err)
		if m := ready.FindSubmatch(text); m != nil {
			c.url, c.ready = "http://"+string(m[1]), time.Since(begin)
			return
		}
		if time.Since(begin) > patience {
			c.t.Fatalf("serve is not ready within %s:\n%s", patience, tail(string(text), 4000))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// stop ends serve.
func (c *crowd) stop() {
	if c.cmd == nil || c.cmd.ProcessState != nil {
		return
	}
	if err := c.cmd.Process.Kill(); err != nil {
		c.t.Error(err)
	}
	_ = c.cmd.Wait() // it says that it was killed
}

// ask sends a request as a commander, and to the webhook as Alertmanager, and returns what
// was answered.
func (c *crowd) ask(method, path, body string) (status int, answer string, err error) {
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer 0123456789abcdef0123456789abcdef")
	if strings.HasSuffix(path, "/alertmanager") {
		req.Header.Set("Authorization", "Bearer api-0123456789abcdef0123456789abcdef")
	}
	resp, err := patient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// do returns an answer that must be 200.
func (c *crowd) do(method, path, body string) string {
	c.t.Helper()
	status, text, err := c.ask(method, path, body)
	if err != nil || status != http.StatusOK {
		c.t.Fatalf("%s %s: %d %.300s, %v", method, path, status, text, err)
	}
	return text
}

func (c *crowd) get(path string) string { c.t.Helper(); return c.do(http.MethodGet, path, "") }

func TestManyPlaybooksAreCheckedAndTheirRulesGenerated(t *testing.T) {
	dir, n := t.TempDir(), crashtest.Rounds(200)
	var files []string
	for i := range n {
		name := filepath.Join(dir, serviceName(i)+".yaml")
		secretFile(t, name, crowdPlaybook(serviceName(i)))
		files = append(files, "--playbook.file="+name)
	}
	if r := backout(t, nil, append([]string{"check"}, files...)...); r.status != 0 || !strings.Contains(r.stdout, serviceName(n-1)+" v2") {
		t.Fatalf("check: %+v", r)
	}
	made := filepath.Join(dir, "made")
	if r := backout(t, nil, append([]string{"rules", "generate", "--no-tests", "--output=" + made}, files...)...); r.status != 0 {
		t.Fatalf("rules generate: %+v", r)
	}
	rules, err := filepath.Glob(filepath.Join(made, "rules", "svc-*.rules.yml"))
	if err != nil || len(rules) < n {
		t.Errorf("%d files of rules, want at least %d: %v", len(rules), n, err)
	}
}

// posters is how many connections a storm comes by.
const posters = 16

// storm posts each of n alerts of each of the first services, in turns, as Alertmanager's
// route for triggers does: one alert per notification. Each must be answered 200.
func (c *crowd) storm(services, each int) {
	c.t.Helper()
	next := make(chan int)
	var all sync.WaitGroup
	for range posters {
		all.Go(func() {
			for i := range next {
				body := strings.ReplaceAll(firing(fmt.Sprintf(`,"instance":"%d"`, i/services)), "shop", serviceName(i%services))
				status, text, err := c.ask(http.MethodPost, "/api/v1/webhook/alertmanager", body)
				if err != nil || status != http.StatusOK || !strings.Contains(text, `"accepted":1`) {
					c.t.Errorf("alert %d was answered %d %.300s, %v", i, status, text, err)
				}
			}
		})
	}
	for i := range services * each {
		next <- i
	}
	close(next)
	all.Wait()
}

// crowdEntry is what is looked at of an entry of the audit log.
type crowdEntry struct {
	Time     time.Time
	Kind     string
	Service  string
	Incident string
	Detail   map[string]any
}

// entries are those of a kind.
func (c *crowd) entries(kind string) (out []crowdEntry) {
	c.t.Helper()
	for line := range strings.Lines(c.get("/audit/export?kind=" + kind)) {
		var en crowdEntry
		c.must(json.Unmarshal([]byte(line), &en))
		if en.Kind == kind {
			out = append(out, en)
		}
	}
	return out
}

// until waits for something.
func (c *crowd) until(what string, is func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// done is how many of the first services had their flag turned off, and how often.
func (c *crowd) done(services int) (off, effects int) {
	for i := range services {
		on, n := c.flags.of(serviceName(i)).state()
		if effects += n; !on {
			off++
		}
	}
	return off, effects
}
