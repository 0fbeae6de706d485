package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation/crashtest"
)

const (
	// most is what a process may take at its highest, whatever it is sent, and honestly
	// how long a small notification may wait beside a large one.
	most     = 300 << 20
	honestly = 2 * time.Second
	// largest is the largest body that is taken.
	largest = 8 << 20
)

// heavy are bodies of up to 8 MiB, each of which becomes much more where nothing
// bounds it, and the status that each is answered.
func heavy() []heavyBody {
	each := func(n int, alert func(i int) string) string {
		var b strings.Builder
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(alert(i))
		}
		return b.String()
	}
	const firing = `{"status":"firing","labels":{"service":"social-intel","alertname":"A"`
	long := strings.Repeat("v", largest-1000)
	return []heavyBody{
		// The first one, so that there is an incident to read.
		{"alerts of one incident", each(9_999, func(i int) string {
			return fmt.Sprintf(`%s,"trigger":"error_rate","i":"%d%s"}}`, firing, i, long[:600])
		}), http.StatusOK},
		{"alerts by the million", strings.Repeat(`{},`, 2_700_000) + `{}`, http.StatusRequestEntityTooLarge},
		{"one huge label", firing + `,"huge":"` + long + `"}}`, http.StatusOK},
		{"huge annotations", firing + `},"annotations":{"d":"` + strings.Repeat(`\u00e9`, (largest-1000)/6) + `"}}`, http.StatusOK},
		{"deep", firing + `},"annotations":` + strings.Repeat(`[`, 4_000_000) + strings.Repeat(`]`, 4_000_000) + `}`, http.StatusBadRequest},
		{"many deep", each(9_000, func(int) string {
			return firing + `},"annotations":` + strings.Repeat(`{"a":`, 140) + `1` + strings.Repeat(`}`, 140) + `}`
		}), http.StatusOK},
		{"many labels", firing + `,` + each(500_000, func(i int) string { return fmt.Sprintf(`"l%d":""`, i) }) + `}}`, http.StatusOK},
		{"labels that are escaped", each(2_000, func(i int) string { return fmt.Sprintf(`%s,"i":"%d%s"}}`, firing, i, strings.Repeat(`\u0001`, 650)) }), http.StatusOK},
		{"alerts that are held", each(9_999, func(i int) string { return fmt.Sprintf(`%s,"trigger":"none-%d","i":"%s"}}`, firing, i, long[:600]) }), http.StatusOK},
		// The last one, so that the newest page of the log is large in the long run.
		{"many alerts, many labels", each(9_999, func(i int) string {
			return firing + `,` + each(17, func(l int) string { return fmt.Sprintf(`"l%d":"%d-%s"`, l, i, long[:24]) }) + `}}`
		}), http.StatusOK},
	}
}

type heavyBody struct {
	name   string
	alerts string
	status int
}

func notificationOf(alerts string) string {
	return `{"version":"4","groupKey":"g","receiver":"backout","alerts":[` + alerts + `]}`
}

// TestNoBodyCostsMuchOrHoldsAnotherUp posts to the real command, built without the race
// detector, which takes several times the memory.
func TestNoBodyCostsMuchOrHoldsAnotherUp(t *testing.T) {
	s := startServing(t)
	bodies := heavy()
	for _, body := range slices.Concat(bodies[:1], crashtest.Draw(t, bodies[1:])) {
		s.takes(t, body)
	}
	s.readAll(t)
	s.within(t, "reading the log")
	s.exportBeside(t)
}

// takes posts a heavy body, and honest ones beside it, and looks at the memory.
func (s *serving) takes(t *testing.T, body heavyBody) {
	t.Helper()
	name, text := body.name, notificationOf(body.alerts)
	if len(text) > largest {
		t.Fatalf("%s: the body has %d bytes", name, len(text))
	}
	// A machine that stands still for 2 s delays an honest one too, but not each time.
	var late []string
	for range 3 {
		if late = s.besides(t, name, text, body.status); len(late) == 0 {
			break
		}
	}
	for _, words := range late {
		t.Errorf("%s: %s", name, words)
	}
	s.within(t, name)
}

// serving is a serve that runs.
type serving struct {
	cmd      *exec.Cmd
	dsn, url string
}

func startServing(t *testing.T) *serving {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "backout.yml") // nothing listens there
	if err := os.WriteFile(config, []byte("prometheus: {url: http://127.0.0.1:1}\nalertmanager: {url: http://127.0.0.1:1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	s := &serving{dsn: "sqlite:" + filepath.Join(dir, "backout.db")}
	s.cmd = exec.Command(program(t), "serve", "--config.file="+config, "--storage.dsn="+s.dsn,
		"--web.listen-address=127.0.0.1:0", "--web.status-listen-address=")
	s.cmd.Env = append(os.Environ(), "GOGC=100") // tests have a higher one
	s.cmd.Stderr = log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("serve ended: %v", err)
		}
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	ready := regexp.MustCompile(`msg="backout is ready" address=(\S+)`)
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(log.Name())
		if err != nil {
			t.Fatal(err)
		}
		if m := ready.FindSubmatch(text); m != nil {
			s.url = "http://" + string(m[1])
			return s
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("serve is not ready after a minute:\n%s", text)
		}
	}
}

// besides posts a heavy notification, and honest ones until it is answered. It returns
// what is to be said of those that came late: after 2 s, and after the heavy one.
func (s *serving) besides(t *testing.T, name, heavy string, want int) (late []string) {
	t.Helper()
	answered := make(chan error, 1)
	go func() {
		status, text, err := s.post(t.Context(), heavy)
		if err == nil && status != want && status != http.StatusServiceUnavailable { // 503: not in time
			err = fmt.Errorf("answered %d, want %d: %.300s", status, want, text)
		}
		answered <- err
	}()
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for honest := 0; ; honest++ {
		<-pace.C
		begin := time.Now()
		status, text, err := s.post(t.Context(), notificationOf(fmt.Sprintf(`{"status":"firing","labels":{"alertname":"Honest","n":"%d"}}`, honest)))
		if err != nil || status != http.StatusOK {
			t.Fatalf("%s: an honest notification beside it was answered %d %s, %v", name, status, text, err)
		}
		took := time.Since(begin)
		select {
		case err := <-answered:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if took > honestly {
				late = append(late, fmt.Sprintf("an honest notification waited for %v", took))
			}
			return late
		default:
		}
	}
}

func (s *serving) post(ctx context.Context, body string) (status int, answer string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/api/v1/webhook/alertmanager", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	return do(req)
}

// patient waits for an answer as long as Alertmanager might.
var patient = &http.Client{Timeout: 2 * time.Minute}

func do(req *http.Request) (status int, answer string, err error) {
	resp, err := patient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// get returns an answer that must be 200.
func (s *serving) get(t *testing.T, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, http.NoBody)
	if err != nil {
		t.Error(err)
		return ""
	}
	status, text, err := do(req)
	if err != nil || status != http.StatusOK {
		t.Errorf("GET %s: %d %.300s, %v", path, status, text, err)
	}
	return text
}

// readAll reads the log in each way that there is, some of them by many at a time.
func (s *serving) readAll(t *testing.T) {
	t.Helper()
	older := regexp.MustCompile(`href="(/audit\?[^"]*before=\d+)"`)
	for path := "/audit?kind=received"; path != ""; {
		m := older.FindStringSubmatch(s.get(t, path))
		if path = ""; m != nil {
			path = strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	for _, path := range []string{"/", "/rollout", "/incidents/inc-1", "/api/v1/incidents", "/api/v1/incidents/inc-1"} {
		s.get(t, path)
	}
	var readers sync.WaitGroup
	for _, path := range []string{"/audit?kind=received", "/audit/export", "/api/v1/audit?kind=received&limit=1000"} {
		for range 8 {
			readers.Go(func() { s.get(t, path) })
		}
	}
	readers.Wait()
}

// exportBeside reads the log from the database, as `backout audit export` does, and
// looks at that process while it still has the end of it to write.
func (s *serving) exportBeside(t *testing.T) {
	t.Helper()
	size := len(s.get(t, "/audit/export"))
	other := &serving{cmd: exec.CommandContext(t.Context(), s.cmd.Path, "audit", "export", "--storage.dsn="+s.dsn)}
	var stderr bytes.Buffer
	other.cmd.Stderr = &stderr
	out, err := other.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A pipe holds 64 KiB: the rest waits in the process.
	if _, err := io.CopyN(io.Discard, out, int64(size)-(128<<10)); err != nil {
		t.Errorf("export: %v\n%s", err, &stderr)
	}
	other.within(t, "the export")
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Error(err)
	}
	if err := other.cmd.Wait(); err != nil {
		t.Errorf("export: %v\n%s", err, &stderr)
	}
}

// within checks the highest that the process has taken so far.
func (s *serving) within(t *testing.T, what string) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmHWM in\n%s", status)
	}
	kib, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB after %s", kib>>10, what)
	if kib<<10 > most {
		t.Errorf("%s: the process took %d MiB", what, kib>>10)
	}
}
