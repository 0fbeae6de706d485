package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation/comms/slack/chattest"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/store/storetest"
	"github.com/locotoki/backout/remediation/view"
	"github.com/locotoki/backout/rules"
)

const (
	replicaLease = 5 * time.Second
	// patience bounds a wait for what must come, busy is what a busy machine may add to a
	// time that is measured.
	patience = 3 * time.Minute
	busy     = 8 * time.Second
)

const replicaPlaybook = `
service: shop
release: {version: v2, previous: v1}
job: shop
scrape_interval: 15s
alive: sum(increase(requests_total[2m])) > bool 0
target:
  compose: {project_dir: /srv/shop, service: shop}
  probe: {health: http://127.0.0.1:9000/health/, timeout: 30s}
flags:
  - {name: FEATURE_A, off: "false", default: "false", fallback: none, launchdarkly: {project: shop, environment: production, key: feature-a}}
indicators:
  - name: error_rate
    query: sum(increase(requests_total{status!="success"}[$window])) / (sum(increase(requests_total[$window])) >= $min_volume)
    unit: ratio
triggers:
  - {name: error_rate, indicator: error_rate, above: 0.01, window: 15m, min_volume: 100, recovery: {window: 2m, min_volume: 13}, plan: ladder}
stages:
  - {name: alpha, traffic: "0.01", duration: 1d, success: [{indicator: error_rate, below: 0.001, window: 1h}]}
plans:
  - name: ladder
    steps:
      - {action: flag_off, flag: FEATURE_A, settle: 5m}
limits: {per_target: 3/1h, per_service: 6/1h, blast_radius: 6/10m, cooldown: 10m, breaker: 3, reopen_within: 1h, close_after: 5m}
warmup: 1m
watchdog: {max_age: 5m}
`

// flagServer is LaunchDarkly with one flag that is on, as far as flag_off asks of it. It
// counts what really changed the flag.
type flagServer struct {
	key     string
	mu      sync.Mutex
	on      bool
	version int
	effects int
	// inside, where set, is called by a change before (false) and after its effect.
	inside func(after bool)
	// called, where set, is called by every request, before (false) and after what it does.
	called func(after bool)
	// asked has the methods of each replica's requests, by the replica's name.
	asked map[string][]string
}

// of is the flag's server as one replica reaches it.
func (f *flagServer) of(replica string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.asked[replica] = append(f.asked[replica], r.Method)
		f.mu.Unlock()
		f.ServeHTTP(w, r)
	}
}

// methods are those of a replica's requests, all but the first n.
func (f *flagServer) methods(replica string, n int) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked[replica][n:])
}

func (f *flagServer) state() (on bool, effects int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.on, f.effects
}

// ServeHTTP implements http.Handler.
func (f *flagServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	called := f.called
	f.mu.Unlock()
	if called != nil {
		called(false)
		defer called(true) // the answer is sent after that
	}
	if r.Method == http.MethodPatch {
		var p struct {
			Instructions []struct {
				Kind string `json:"kind"`
			} `json:"instructions"`
		}
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil || len(p.Instructions) != 1 {
			http.Error(w, "odd", http.StatusBadRequest)
			return
		}
		f.mu.Lock()
		inside := f.inside
		f.mu.Unlock()
		if inside != nil {
			inside(false)
		}
		f.mu.Lock()
		if want := p.Instructions[0].Kind == "turnFlagOn"; want != f.on {
			f.on = want
			f.version++
			f.effects++
		}
		f.mu.Unlock()
		if inside != nil {
			inside(true)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // who asked may be gone
		"key": cmp.Or(f.key, "feature-a"), "variations": []any{map[string]any{"_id": "t", "value": true}, map[string]any{"_id": "f", "value": false}},
		"environments": map[string]any{"production": map[string]any{
			"on": f.on, "offVariation": 1, "version": f.version, "fallthrough": map[string]any{"variation": 0},
			"rules": []any{}, "targets": []any{}, "contextTargets": []any{}, "prerequisites": []any{},
		}},
	})
}

// site is two replicas of backout on one PostgreSQL, and all that is around them.
type site struct {
	t      *testing.T
	dir    string
	server *storetest.Server
	flag   *flagServer
	// playbook is every replica's, extra what each has more in its configuration.
	playbook, extra string
	// books are the playbooks: that one alone, or one for each of services, made of it.
	books    []book
	services int
	// away is whose Prometheus does not answer, by name.
	away sync.Map
	// program, where set, makes a replica's command.
	program func(name string, args []string) *exec.Cmd
}

// book is one service: its playbook, its flag, and what Prometheus is asked of it.
type book struct {
	service, text string
	flag          *flagServer
	expr          rules.Expressions
}

// made are the playbooks of the site.
func (s *site) made() (all []book) {
	if s.services == 0 {
		return []book{{service: "shop", text: s.playbook, flag: s.flag}}
	}
	for i := range s.services {
		name := fmt.Sprint("shop", i)
		text := strings.NewReplacer("service: shop\n", "service: "+name+"\n", "job: shop", "job: "+name, "service: shop}", "service: "+name+"}", "key: feature-a", "key: "+name,
			"requests_total", "requests_total_"+name, "blast_radius: 6/10m", "blast_radius: 1000/10m", "breaker: 3", "breaker: 1000").Replace(s.playbook)
		all = append(all, book{service: name, text: text, flag: newFlagServer(name)})
	}
	return all
}

func newFlagServer(key string) *flagServer {
	return &flagServer{key: key, on: true, version: 1, asked: map[string][]string{}}
}

// flags is LaunchDarkly as one replica reaches it.
func (s *site) flags(replica string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for _, b := range s.books {
			if b.flag.key == path.Base(r.URL.Path) {
				b.flag.of(replica)(w, r)
				return
			}
		}
		http.NotFound(w, r)
	}
}

func newSite(t *testing.T, edit ...func(*site)) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), server: storetest.NewServer(t), flag: newFlagServer("feature-a"), playbook: replicaPlaybook}
	for _, e := range edit {
		e(s)
	}
	kinds, err := actionKinds(config.Default(), nil, slog.New(slog.DiscardHandler))
	s.must(err)
	for _, b := range s.made() {
		pb, err := alerts.Parse(b.service+".yaml", []byte(b.text), playbookKinds(kinds.list))
		s.must(err)
		b.expr, err = rules.ExpressionsOf(pb)
		s.must(err)
		secretFile(t, filepath.Join(s.dir, b.service+".yaml"), b.text)
		s.books = append(s.books, b)
	}
	s.must(kinds.Close())
	secretFile(t, filepath.Join(s.dir, "dsn"), s.server.DSN()+"\n")
	secretFile(t, filepath.Join(s.dir, "ld.token"), "api-0123456789abcdef0123456789abcdef\n")
	secretFile(t, filepath.Join(s.dir, "oncall.token"), "0123456789abcdef0123456789abcdef\n")
	for _, name := range []string{"a", "b"} {
		prometheus := httptest.NewServer(s.prometheus(name))
		t.Cleanup(prometheus.Close)
		flags := httptest.NewServer(s.flags(name))
		t.Cleanup(flags.Close)
		secretFile(t, filepath.Join(s.dir, name+".yml"), fmt.Sprintf(`prometheus: {url: %q}
alertmanager: {url: http://127.0.0.1:1}
launchdarkly: {url: %q, token_file: ld.token}
tokens: [{name: oncall, role: commander, file: oncall.token}, {name: am, role: alertmanager, file: ld.token}]
storage: {dsn_file: dsn}
replica: {name: %s, lease: %s}
%s`, prometheus.URL, flags.URL, name, replicaLease, s.extra))
	}
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// prometheus answers the rules' expressions: a service breaches while its flag is on.
func (s *site) prometheus(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if _, away := s.away.Load(name); away {
			panic(http.ErrAbortHandler) // the connection ends without an answer
		}
		value, q := "1", r.FormValue("query")
		for _, b := range s.books {
			switch x := b.expr.Triggers["error_rate"]; q {
			case b.expr.Age:
				value = "0"
			case x.Value, x.Recovery:
				if value = "0"; b.flag.isOn() {
					value = "0.5"
				}
			}
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,%q]}]}}`, time.Now().Unix(), value) //nolint:errcheck // who asked may be gone
	}
}

// process is one replica.
type process struct {
	s    *site
	name string
	cmd  *exec.Cmd
	log  string
	url  string
}

// start starts a replica and waits until it is ready.
func (s *site) start(name string) *process {
	s.t.Helper()
	log, err := os.CreateTemp(s.dir, name+"-*.log")
	s.must(err)
	p := &process{s: s, name: name, log: log.Name()}
	args := []string{"serve", "--config.file=" + filepath.Join(s.dir, name+".yml"), "--mode=act", "--web.listen-address=127.0.0.1:0", "--web.status-listen-address="}
	for _, b := range s.books {
		args = append(args, "--playbook.file="+filepath.Join(s.dir, b.service+".yaml"))
	}
	p.cmd = exec.Command(program(s.t), args...)
	if s.program != nil {
		p.cmd = s.program(name, args)
	}
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.must(p.cmd.Start())
	s.must(log.Close())
	s.t.Cleanup(p.kill)
	ready := regexp.MustCompile(`msg="backout is ready" address=(\S+)`)
	s.until(name+" is ready", func() bool {
		if m := ready.FindStringSubmatch(p.said()); m != nil {
			p.url = "http://" + m[1]
		}
		return p.url != ""
	})
	return p
}

func (p *process) said() string {
	text, err := os.ReadFile(p.log)
	p.s.must(err)
	return string(text)
}

// kill ends a replica as kill -9 does.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	if err := p.cmd.Process.Kill(); err != nil {
		p.s.t.Error(err)
	}
	_ = p.cmd.Wait() // it says that it was killed
}

func (p *process) signal(sig syscall.Signal) {
	p.s.t.Helper()
	p.s.must(p.cmd.Process.Signal(sig))
}

// until waits for something.
func (s *site) until(what string, is func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			logs, err := filepath.Glob(filepath.Join(s.dir, "*.log"))
			s.must(err)
			for _, log := range logs {
				text, err := os.ReadFile(log)
				s.must(err)
				s.t.Logf("%s ends\n%s", filepath.Base(log), tail(string(text), 4000))
			}
			s.t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// ask sends a request as a commander; it returns what was answered, 0 where nothing was.
func (p *process) ask(method, path, body string) (status int, answer string) {
	req, err := http.NewRequestWithContext(p.s.t.Context(), method, p.url+path, strings.NewReader(body))
	p.s.must(err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer 0123456789abcdef0123456789abcdef")
	if strings.HasSuffix(path, "/alertmanager") {
		req.Header.Set("Authorization", "Bearer api-0123456789abcdef0123456789abcdef")
	}
	resp, err := (&http.Client{Timeout: 20 * time.Second}).Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// status is what a replica sees; nil where it does not answer.
func (p *process) status() *view.Status {
	code, text := p.ask(http.MethodGet, "/api/v1/status", "")
	var v view.Status
	if code != http.StatusOK || json.Unmarshal([]byte(text), &v) != nil {
		return nil
	}
	return &v
}

// acts returns who acts in the default realm, as p sees it; "" for nobody.
func (p *process) acts() string {
	if v := p.status(); v != nil {
		for _, r := range v.Replicas {
			if slices.Contains(r.Realms, "") {
				return r.Name
			}
		}
	}
	return ""
}

func firing(labels string) string {
	return `{"version":"4","groupKey":"g","receiver":"backout","alerts":[{"status":"firing","labels":{"alertname":"Rollback","service":"shop","trigger":"error_rate","severity":"critical","rollout":"v2"` + labels + `}}]}`
}

// alert posts a firing alert of the service shop, alertOf one of another.
func (p *process) alert(labels string) (status int) { return p.alertOf("shop", labels) }

func (p *process) alertOf(service, labels string) (status int) {
	status, _ = p.ask(http.MethodPost, "/api/v1/webhook/alertmanager", strings.Replace(firing(labels), `"service":"shop"`, fmt.Sprintf(`"service":%q`, service), 1))
	return status
}

// kinds counts the audit log's entries of a kind.
func (p *process) count(kind string) int {
	_, text := p.ask(http.MethodGet, "/api/v1/audit?limit=1000&kind="+url.QueryEscape(kind), "")
	return strings.Count(text, `"seq":`)
}

// The incident is watched until it is closed and every message is out.
func TestTwoProcessesHandleOneAlertOnce(t *testing.T) {
	slack := chattest.New(t)
	s := newSite(t, func(s *site) {
		s.playbook += "communications: {slack_channel: \"#incidents\"}\n"
		s.extra = fmt.Sprintf("slack: {url: %q, token_file: slack.token}\n", slack.URL())
		secretFile(s.t, filepath.Join(s.dir, "slack.token"), chattest.Token+"\n")
	})
	a, b := s.start("a"), s.start("b")
	var both sync.WaitGroup
	for _, p := range []*process{a, b} {
		both.Go(func() {
			if status := p.alert(""); status != http.StatusOK {
				t.Errorf("%s answered %d", p.name, status)
			}
		})
	}
	both.Wait()
	s.until("the flag is off", func() bool { on, _ := s.flag.state(); return !on })
	s.until("the step is verified", func() bool { return b.count("verified") == 1 })
	if n := a.count("opened"); n != 1 {
		t.Errorf("%d incidents", n)
	}
	if _, n := s.flag.state(); n != 1 {
		t.Errorf("%d effects", n)
	}
	// A form that one replica made is taken by the other, and so is an approval's address.
	if status, text := b.ask(http.MethodPut, "/api/v1/freeze", `{"service":"shop","scope":"all","reason":"r"}`); status != http.StatusOK {
		t.Errorf("a freeze on b: %d %s", status, text)
	}
	if _, text := a.ask(http.MethodGet, "/api/v1/freeze", ""); !strings.Contains(text, `"service":"shop"`) {
		t.Errorf("a does not know the freeze: %s", text)
	}
	for _, p := range []*process{a, b} { // the alert comes again, and is over
		for _, body := range []string{firing(""), strings.Replace(firing(""), `"status":"firing"`, `"status":"resolved"`, 1)} {
			if status, text := p.ask(http.MethodPost, "/api/v1/webhook/alertmanager", body); status != http.StatusOK {
				t.Errorf("%s answered %d %s", p.name, status, text)
			}
		}
	}
	if status, text := b.ask(http.MethodPost, "/api/v1/incidents/inc-1/close", `{"reason":"over"}`); status != http.StatusOK {
		t.Errorf("close on b: %d %s", status, text)
	}
	s.until("the incident is closed and all messages are out", func() bool {
		_, metrics := a.ask(http.MethodGet, "/metrics", "")
		return b.count("closed") == 1 && strings.Contains(metrics, "\nbackout_outbox_pending 0\n")
	})
	for kind, want := range map[string]int{"opened": 1, "intent": 1, "outcome": 1, "verified": 1, "closed": 1, "reopened": 0, "in_doubt": 0} {
		if n := a.count(kind); n != want {
			t.Errorf("%d entries %s in the end, not %d", n, kind, want)
		}
	}
	if _, n := s.flag.state(); n != 1 {
		t.Errorf("%d effects in the end", n)
	}
	slack.Do(func() {
		var mains []*chattest.Posted
		for _, m := range slack.Incidents().Mains() {
			if strings.Contains(m.Text, "inc-1") || strings.Contains(string(m.Blocks), "inc-1") {
				mains = append(mains, m)
			}
		}
		if len(mains) != 1 {
			t.Fatalf("%d messages about the incident, not one", len(mains))
		}
		told := map[string]bool{}
		for _, m := range slack.Incidents().Thread(mains[0].TS) {
			if told[m.Text] {
				t.Errorf("told twice in the thread: %s", m.Text)
			}
			told[m.Text] = true
		}
		if len(told) < 3 {
			t.Errorf("the thread has %d messages", len(told))
		}
	})
	export := exportOf(t, s.server)
	if !strings.Contains(export, `"kind":"lease"`) {
		t.Error("the audit log does not say who acts")
	}
}

func TestAProcessThatStopsInsideAStepIsReplaced(t *testing.T) {
	for _, after := range crashtest.Draw(t, []bool{false, true}) {
		t.Run(map[bool]string{false: "before the effect", true: "after the effect"}[after], func(t *testing.T) {
			s := newSite(t)
			p := map[string]*process{}
			for _, n := range []string{"a", "b"} {
				p[n] = s.start(n)
			}
			var holder string
			s.until("somebody acts", func() bool { holder = p["a"].acts(); return holder != "" })
			old, other := p[holder], p["b"]
			if holder == "b" {
				other = p["a"]
			}
			inside, release := make(chan struct{}), make(chan struct{})
			var once sync.Once
			s.flag.mu.Lock()
			s.flag.inside = func(is bool) {
				stops := false
				if is == after {
					once.Do(func() { stops = true })
				}
				if stops {
					close(inside)
					<-release
				}
			}
			s.flag.mu.Unlock()
			if status := other.alert(""); status != http.StatusOK {
				t.Fatalf("answered %d", status)
			}
			<-inside
			old.signal(syscall.SIGSTOP)
			stopped, before := time.Now(), len(s.flag.methods(other.name, 0))
			s.until("the other acts", func() bool { return other.acts() == other.name })
			took := time.Since(stopped)
			t.Logf("taken over after %.1f s, with a lease of %s", took.Seconds(), replicaLease)
			if took > replicaLease+2*time.Second+busy {
				t.Errorf("taken over after %s", took)
			}
			s.until("it looks", func() bool { return other.count("in_doubt") > 0 })
			s.until("the flag is off", func() bool { on, _ := s.flag.state(); return !on })
			close(release) // the request that was under way is answered to nobody
			for time.Since(stopped) < replicaLease+5*time.Second {
				time.Sleep(50 * time.Millisecond)
			}
			old.signal(syscall.SIGCONT)
			s.until("the step is verified", func() bool { return other.count("verified") == 1 })
			s.until("the late outcome is appended", func() bool { return other.count("late_outcome") == 1 })
			if on, n := s.flag.state(); on || n != 1 {
				t.Errorf("the flag is on: %v, after %d effects", on, n)
			}
			sent := map[bool]int{false: 1}[after] // by the other: what has its effect already is not sent again
			methods := s.flag.methods(other.name, before)
			if len(methods) == 0 || methods[0] != http.MethodGet || patches(methods) != sent || patches(s.flag.methods(old.name, 0)) != 1 {
				t.Errorf("the other asked %q, want a look first and %d changes; the old one asked %q", methods, sent, s.flag.methods(old.name, 0))
			}
			inOrderOf(t, exportOf(t, s.server))
		})
	}
}

func patches(methods []string) (n int) {
	for _, m := range methods {
		if m == http.MethodPatch {
			n++
		}
	}
	return n
}

// inOrderOf checks that no lease of an older epoch comes behind one of a newer.
func inOrderOf(t *testing.T, export string) {
	t.Helper()
	last := 0.0
	for _, line := range strings.Split(strings.TrimSpace(export), "\n") {
		var en struct {
			Kind   string
			Detail map[string]any
		}
		if err := json.Unmarshal([]byte(line), &en); err != nil {
			t.Fatal(err)
		}
		if en.Kind != "lease" || en.Detail["realm"] != "" || en.Detail["state"] != "taken" {
			continue
		}
		epoch, _ := en.Detail["epoch"].(float64)
		if epoch <= last {
			t.Errorf("epoch %v after %v", epoch, last)
		}
		last = epoch
	}
	if last == 0 {
		t.Error("the audit log has no lease")
	}
}

// Each kill has a service of its own that has just breached, so that it can fall into a step.
func TestNothingIsLostOrDoubledWhileReplicasAreKilled(t *testing.T) {
	rounds := crashtest.Rounds(crashtest.Rounds(100)) // with -short an eighth of an eighth
	s := newSite(t, func(s *site) { s.services = rounds })
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex
	p := map[string]*process{"a": s.start("a"), "b": s.start("b")}
	either := func(i int) *process {
		mu.Lock()
		defer mu.Unlock()
		return p[[]string{"a", "b"}[i%2]]
	}
	// post repeats, as Alertmanager does, what was not taken.
	post := func(ctx context.Context, service, name string, first int) (taken bool) {
		for k := first; ctx.Err() == nil; k++ {
			if either(k).alertOf(service, fmt.Sprintf(`,"n":%q`, name)) == http.StatusOK {
				return true
			}
			time.Sleep(20 * time.Millisecond)
		}
		return false
	}
	ctx, cancel := context.WithCancel(t.Context())
	var posters sync.WaitGroup
	var begun atomic.Int32 // services that breach
	answered := make([][]string, 5)
	for i := range 4 {
		posters.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				time.Sleep(20 * time.Millisecond) // some 200 a second are load enough
				name, breaching := fmt.Sprintf("%d-%d", i, n), int(begun.Load())
				if breaching > 0 && post(ctx, s.books[n%breaching].service, name, i+n) {
					answered[i] = append(answered[i], name)
				}
			}
		})
	}
	for n, b := range s.books {
		if n > 0 { // so that somebody acts when this one breaches
			s.until("the flag before is off", func() bool { return !s.books[n-1].flag.isOn() })
		}
		// Every other kill meets the step's call to the flag's server, before or after its effect.
		within, after := n%2 == 1, r.IntN(2) == 1
		met, release := make(chan struct{}), make(chan struct{})
		goOn := sync.OnceFunc(func() { close(release) })
		t.Cleanup(goOn)
		if within {
			var once sync.Once
			b.flag.mu.Lock()
			b.flag.inside = func(is bool) {
				if is == after {
					once.Do(func() { close(met); <-release })
				}
			}
			b.flag.mu.Unlock()
		}
		name := "first-" + b.service
		if !post(ctx, b.service, name, n) {
			t.Fatal("the test's time is over")
		}
		answered[4] = append(answered[4], name)
		begun.Add(1)
		victim := []string{"a", "b"}[r.IntN(2)]
		if within {
			s.until("the step's call is met", func() bool {
				select {
				case <-met:
					return true
				default:
					return false
				}
			})
			if victim = "a"; !slices.Contains(b.flag.methods("a", 0), http.MethodPatch) {
				victim = "b"
			}
		} else {
			time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
		}
		mu.Lock()
		old := p[victim]
		mu.Unlock()
		old.kill()
		goOn()
		fresh := s.start(victim)
		mu.Lock()
		p[victim] = fresh
		mu.Unlock()
	}
	for _, b := range s.books {
		s.until("the flag of "+b.service+" is off", func() bool { return !b.flag.isOn() })
	}
	cancel()
	posters.Wait()
	s.until("each step is verified", func() bool { return either(0).count("verified") == rounds })
	for _, b := range s.books {
		if _, n := b.flag.state(); n != 1 {
			t.Errorf("%s: %d effects", b.service, n)
		}
	}
	for _, one := range p {
		one.kill()
	}
	export := exportOf(t, s.server)
	inOrderOf(t, export)
	total, kept := 0, map[string]bool{}
	for _, m := range regexp.MustCompile(`\["n","([^"]+)"\]`).FindAllStringSubmatch(export, -1) {
		kept[m[1]] = true
	}
	for _, names := range answered {
		for _, name := range names {
			if total++; !kept[name] {
				t.Errorf("notification %s was answered 200 and is lost", name)
			}
		}
	}
	if n := strings.Count(export, `"kind":"opened"`); n != rounds {
		t.Errorf("%d incidents of %d services", n, rounds)
	}
	inStep := strings.Count(export, `"kind":"in_doubt"`)
	t.Logf("%d notifications; %d of %d kills fell into a step", total, inStep, rounds)
	if inStep < rounds/2 {
		t.Error("not every other kill fell into a step")
	}
}
