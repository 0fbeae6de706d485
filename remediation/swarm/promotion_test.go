package swarm

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const promotionPlaybook = `
service: shop
release: {version: v2.0.0, previous: v1.0.0}
job: shop
scrape_interval: 15s
alive: sum(increase(requests_total[2m])) > bool 0
target:
  swarm: {service: SERVICE, stack_file: DIR/stack.yml, env_file: DIR/shop.env}
  probe: {port: "9000", health: /health/, version: /version, flags: /flags, timeout: 10s}
flags:
  - {name: FLAG, off: "0", default: "0", fallback: none}
indicators:
  - name: error_rate
    query: sum(increase(requests_total{status!="success"}[$window])) / (sum(increase(requests_total[$window])) >= $min_volume)
    unit: ratio
triggers:
  - {name: error_rate, indicator: error_rate, above: 0.01, window: 15m, min_volume: 100, recovery: {window: 2m, min_volume: 13}, plan: ladder}
stages:
  - {name: alpha, traffic: "0.01", duration: 1d, success: [{indicator: error_rate, below: 0.001, window: 1h}]}
  - {name: beta, traffic: "0.1", duration: 1d, success: [{indicator: error_rate, below: 0.001, window: 1h}]}
plans:
  - name: ladder
    steps:
      - {action: flag_off, flag: FLAG, settle: 5m}
limits: {per_target: 3/1h, per_service: 6/1h, blast_radius: 6/10m, cooldown: 10m, breaker: 3, reopen_within: 1h, close_after: 5m}
warmup: 1m
watchdog: {max_age: 5m}
`

// server is a backout that serves the world's service.
type server struct {
	*world
	url string
}

// built is the program, where the tests of the command leave it too.
var built = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../../.cache/test/backout")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "../../cmd/backout").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build backout: %w\n%s", err, out)
	}
	return path, nil
})

// serve starts backout. Prometheus answers every query with 1.
func (w *world) serve() *server {
	w.Helper()
	dir := w.TempDir()
	prometheus := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(rw, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,"1"]}]}}`, time.Now().Unix()) // who asked may be gone
	}))
	w.Cleanup(prometheus.Close)
	for name, text := range map[string]string{
		"playbook.yaml": strings.NewReplacer("SERVICE", w.service(), "DIR", w.dir).Replace(promotionPlaybook),
		"oncall.token":  "0123456789abcdef0123456789abcdef\n",
		"backout.yml": fmt.Sprintf("prometheus: {url: %q}\nalertmanager: {url: http://127.0.0.1:1}\ndocker: {host: %q, projects: [%s]}\n"+
			"tokens: [{name: oncall, role: commander, file: oncall.token}]\n", prometheus.URL, w.host, w.dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			w.Fatal(err)
		}
	}
	program, err := built()
	if err != nil {
		w.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		w.Fatal(err)
	}
	cmd := exec.Command(program, "serve", "--config.file="+filepath.Join(dir, "backout.yml"), "--playbook.file="+filepath.Join(dir, "playbook.yaml"),
		"--storage.dsn=sqlite:"+filepath.Join(dir, "backout.db"), "--mode=act", "--web.listen-address=127.0.0.1:0", "--web.status-listen-address=")
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it says that it was killed
		if err := log.Close(); err != nil {
			w.Error(err)
		}
		if w.Failed() {
			w.Log(readFile(w.T, log.Name()))
		}
	})
	s, ready := &server{world: w}, regexp.MustCompile(`msg="backout is ready" address=(\S+)`)
	w.eventually("backout is ready", func() error {
		m := ready.FindStringSubmatch(readFile(w.T, log.Name()))
		if m == nil {
			return errors.New("it is not")
		}
		s.url = "http://" + m[1]
		return nil
	})
	return s
}

// send sends a request as a commander, and ask one that succeeds.
func (s *server) send(method, path, body string) (status int, answer string) {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer 0123456789abcdef0123456789abcdef")
	resp, err := (&http.Client{Timeout: generous}).Do(req)
	if err != nil {
		s.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err != nil || cerr != nil {
		s.Fatal(err, cerr)
	}
	return resp.StatusCode, string(text)
}

func (s *server) ask(method, path, body string) string {
	s.Helper()
	status, text := s.send(method, path, body)
	if status != http.StatusOK {
		s.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	return text
}

// audit counts the entries of one kind that are about a promotion's share.
func (s *server) audit(kind string) int {
	return strings.Count(s.ask(http.MethodGet, "/api/v1/audit?limit=1000&kind="+kind, ""), `"action":"flag_set"`)
}

// A promotion by backout itself: the next stage's share of the traffic is in the env file and in the service, and each task
// on both nodes serves it.
func TestAPromotionGivesTheTasksTheNextStagesShare(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{env: "TAG=v2.0.0\nFLAG=0.01\n"})
	w.expectSaid("0.01 v2.0.0", 2)
	s := w.serve()
	s.ask(http.MethodPost, "/api/v1/rollout/start", `{"service":"shop","stage":"alpha","declare":true,"reason":"r"}`)
	s.ask(http.MethodPost, "/api/v1/rollout/promote", `{"service":"shop","force":true,"reason":"r"}`)
	w.eventually("the rollout is at beta", func() error {
		if text := s.ask(http.MethodGet, "/api/v1/rollout", ""); !strings.Contains(text, `"stage":"beta"`) {
			return fmt.Errorf("it is not: %s", text)
		}
		return nil
	})
	w.expectSaid("0.1 v2.0.0", 2)
	if got := w.read("shop.env"); got != "TAG=v2.0.0\nFLAG=0.1\n" {
		t.Errorf("the env file:\n%s", got)
	}
	for _, kind := range []string{"intent", "outcome", "verified"} {
		if n := s.audit(kind); n != 1 {
			t.Errorf("%d entries %s of flag_set, not one", n, kind)
		}
	}
	if n := w.see().Spec.Labels[markLabel]; n == "" {
		t.Error("the service does not say that backout set it")
	}
	w.deploy() // by a person: it changes nothing
	w.expectSaid("0.1 v2.0.0", 2)
}

// A share that the tasks do not serve is taken back, and the rollout stays where it is.
func TestAPromotionThatTheTasksDoNotServeIsUndone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{env: "TAG=v2.0.0\nFLAG=0.01\n", environment: `{FLAG: "${FLAG}", BREAKS: deaf}`})
	s, before := w.serve(), w.see().container().Env
	s.ask(http.MethodPost, "/api/v1/rollout/start", `{"service":"shop","stage":"alpha","declare":true,"reason":"r"}`)
	s.send(http.MethodPost, "/api/v1/rollout/promote", `{"service":"shop","force":true,"reason":"r"}`)
	w.eventually("the promotion is undone", func() error {
		if text := s.ask(http.MethodGet, "/api/v1/audit?limit=1000&kind=outcome", ""); !strings.Contains(text, "serves FLAG=1, want 0.1") || w.read("shop.env") != "TAG=v2.0.0\nFLAG=0.01\n" {
			return fmt.Errorf("it is not: %s", text)
		}
		return nil
	})
	w.eventually("the service has its share again", func() error {
		if now := w.see().container().Env; !slices.Equal(now, before) {
			return fmt.Errorf("it has %q, not %q", now, before)
		}
		return nil
	})
	if text := s.ask(http.MethodGet, "/api/v1/rollout", ""); !strings.Contains(text, `"stage":"alpha"`) {
		t.Errorf("the rollout: %s", text)
	}
	if n := s.audit("verified"); n != 0 {
		t.Errorf("%d entries verified", n)
	}
}
