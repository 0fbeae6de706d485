package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/store/storetest"
)

// serveLog is what serve writes, which a test reads meanwhile.
type serveLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *serveLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *serveLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// serveOn runs serve in this process on the database that a file names, and returns its
// address; stop ends it.
func serveOn(t testing.TB, dsn string) (address string, log *serveLog, stop func()) {
	t.Helper()
	dir := t.TempDir()
	secretFile(t, filepath.Join(dir, "dsn"), dsn+"\n")
	secretFile(t, filepath.Join(dir, "backout.yml"), "prometheus: {url: http://127.0.0.1:1}\nalertmanager: {url: http://127.0.0.1:1}\nstorage: {dsn_file: dsn}\n")
	log = &serveLog{}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan int, 1)
	go func() {
		ended <- newCommands(nil, io.Discard, log).exec(ctx, []string{"serve", "--config.file=" + filepath.Join(dir, "backout.yml"),
			"--web.listen-address=127.0.0.1:0", "--web.status-listen-address="})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if status := <-ended; status != 0 {
			t.Errorf("serve ended with %d:\n%s", status, log)
		}
	})
	t.Cleanup(stop)
	ready := regexp.MustCompile(`msg="backout is ready" address=(\S+)`)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if m := ready.FindStringSubmatch(log.String()); m != nil {
			return m[1], log, stop
		}
		if time.Now().After(deadline) {
			t.Fatalf("serve is not ready after a minute:\n%s", log)
		}
	}
}

// poster posts notifications of one fresh alert each until it is stopped.
type poster struct {
	client   *http.Client
	answered []string // the alerts of those answered 200
	refused  int      // 503 with Retry-After
	wrong    []string // anything else
}

func (p *poster) post(ctx context.Context, url, name string) {
	body := fmt.Sprintf(`{"version":"4","groupKey":"g","receiver":"backout","alerts":[{"status":"firing","labels":{"alertname":"A","service":"social-intel","trigger":"error_rate","n":%q}}]}`, name)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		p.wrong = append(p.wrong, err.Error())
		return
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		p.wrong = append(p.wrong, err.Error())
		return
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		p.wrong = append(p.wrong, err.Error())
	case resp.StatusCode == http.StatusOK:
		p.answered = append(p.answered, name)
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		p.refused++
	default:
		p.wrong = append(p.wrong, fmt.Sprintf("%d %s", resp.StatusCode, text))
	}
}

// TestADatabaseThatIsCutOffLosesNothingAnswered stops PostgreSQL as a machine that fails
// would, and lets a network swallow all that is sent to it, under 16 posters: for a moment,
// and for 30 s, in the short run for 4 s.
func TestADatabaseThatIsCutOffLosesNothingAnswered(t *testing.T) {
	const posters = 16
	long := time.Duration(crashtest.Rounds(30)) * time.Second
	server := storetest.NewServer(t)
	u, err := url.Parse(server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	network := storetest.NewNetwork(t, u.Host)
	u.Host = network.Address
	address, log, stop := serveOn(t, u.String())
	var accepted, refused atomic.Int64
	all := make([]poster, posters)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: posters}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			p := &all[i]
			p.client = client
			for n := 0; ctx.Err() == nil; n++ {
				before := len(p.answered)
				p.post(context.WithoutCancel(ctx), "http://"+address+"/api/v1/webhook/alertmanager", fmt.Sprintf("%d-%d", i, n))
				if len(p.answered) > before {
					accepted.Add(1)
				} else {
					refused.Add(1)
					time.Sleep(10 * time.Millisecond) // as Alertmanager would not be as fast
				}
			}
		})
	}
	until := func(what string, counter *atomic.Int64, more int64) {
		t.Helper()
		want := counter.Load() + more
		for deadline := time.Now().Add(2 * time.Minute); counter.Load() < want; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: %d of %d after two minutes; the log ends\n%.3000s", what, counter.Load(), want, tail(log.String(), 3000))
			}
		}
	}
	swallow := func() { network.Gone.Store(true) }
	back := func() { network.Gone.Store(false) }
	for _, c := range []struct {
		name     string
		cut, end func()
		lasts    time.Duration
	}{
		{"the server stops", server.Stop, server.Start, 0},
		{"the server stops for long", server.Stop, server.Start, long},
		{"the network swallows", swallow, back, 0},
		{"the network swallows for long", swallow, back, long},
	} {
		until(c.name+": notifications accepted before", &accepted, 200)
		c.cut()
		began := time.Now()
		until(c.name+": notifications refused", &refused, posters)
		cut := accepted.Load() // what was under way is answered
		for time.Since(began) < c.lasts {
			until(c.name+": notifications refused", &refused, 1)
		}
		if n := accepted.Load(); n != cut {
			t.Errorf("%s: %d notifications were accepted meanwhile", c.name, n-cut)
		}
		t.Logf("%s: cut off for %.1f s", c.name, time.Since(began).Seconds())
		c.end()
	}
	until("notifications accepted after the last cut", &accepted, 200)
	cancel()
	wg.Wait()
	if text := httpGet(t, client, "http://"+address+"/-/ready"); !strings.Contains(text, "ready") {
		t.Errorf("it is not ready again: %s", text)
	}
	stop()

	export := exportOf(t, server)
	for i := range all {
		if len(all[i].wrong) > 0 {
			t.Errorf("poster %d was answered %q", i, all[i].wrong[0])
		}
		for _, name := range all[i].answered {
			if !strings.Contains(export, fmt.Sprintf("[\"n\",%q]", name)) {
				t.Errorf("notification %s was answered 200 and is lost", name)
			}
		}
	}
	t.Logf("%d notifications accepted, %d refused", accepted.Load(), refused.Load())
}

// exportOf verifies the audit log and returns all of it, with the password in a file.
func exportOf(t *testing.T, server *storetest.Server) string {
	t.Helper()
	u, err := url.Parse(server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	pass, _ := u.User.Password()
	file := filepath.Join(t.TempDir(), "pass")
	secretFile(t, file, "*:*:*:*:"+pass+"\n")
	u.User, u.RawQuery = url.User(u.User.Username()), url.Values{"passfile": {file}}.Encode()
	if r := backout(t, nil, "audit", "verify", "--storage.dsn="+u.String()); r.status != 0 || !strings.HasPrefix(r.stdout, "ok: ") {
		t.Errorf("audit verify: %+v", r)
	}
	r := backout(t, nil, "audit", "export", "--storage.dsn="+u.String())
	if r.status != 0 {
		t.Fatalf("audit export: %d %s", r.status, r.stderr)
	}
	return r.stdout
}

func httpGet(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func tail(s string, n int) string { return s[max(len(s)-n, 0):] }

func TestTheStorageIsCopiedFromTheCommandLine(t *testing.T) {
	dir := t.TempDir()
	dsn := storetest.Postgres(t)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pass")
	secretFile(t, file, "*:*:*:*:pass\\:word\n")
	q := u.Query()
	q.Set("passfile", file)
	u.User, u.RawQuery = url.User(u.User.Username()), q.Encode()
	sqlite := "sqlite:" + filepath.Join(dir, "b.db")
	_, _, stop := serveOn(t, sqlite)
	copying := []string{"storage", "copy", "--from=" + sqlite, "--to=" + u.String()}
	if r := backout(t, nil, copying...); r.status != 2 || !strings.Contains(r.stderr, "in use by") {
		t.Errorf("the copy of a running server's: %+v", r)
	}
	stop()
	before := backout(t, nil, "audit", "export", "--storage.dsn="+sqlite)
	if r := backout(t, nil, copying...); r.status != 0 || !strings.Contains(r.stdout, "Copied and compared. Both logs end with 1:") || !strings.Contains(r.stdout, "audit             1 entry") && !strings.Contains(r.stdout, "audit             1 row") {
		t.Fatalf("the copy: %+v", r)
	}
	if r := backout(t, nil, copying...); r.status != 1 || !strings.Contains(r.stderr, "it is not empty") {
		t.Errorf("a second copy: %+v", r)
	}
	after := backout(t, nil, "audit", "export", "--storage.dsn="+u.String())
	if after.stdout != before.stdout || after.stdout == "" {
		t.Errorf("the log was\n%s\nand is\n%s (%s)", before.stdout, after.stdout, after.stderr)
	}
	for _, args := range [][]string{
		{"incident", "list"}, {"rollout", "status"}, {"audit", "tail"}, {"check", "--coverage"}, {"audit", "verify"},
	} {
		if r := backout(t, nil, append(args, "--storage.dsn="+u.String())...); r.status == 2 && args[0] != "check" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	_, _, stop = serveOn(t, u.String())
	if r := backout(t, nil, "storage", "copy", "--from="+u.String(), "--to=sqlite:"+filepath.Join(dir, "back.db")); r.status != 2 || !strings.Contains(r.stderr, "works on this database") {
		t.Errorf("the copy of a running server's on PostgreSQL: %+v", r)
	}
	stop()
	if r := backout(t, nil, "storage", "copy", "--from="+u.String(), "--to=sqlite:"+filepath.Join(dir, "back.db"), "--output=json"); r.status != 0 || !strings.Contains(r.stdout, `"audit": 4`) {
		t.Errorf("the way back: %+v", r)
	}
}

func TestNoPasswordIsTakenInAStorageFlag(t *testing.T) {
	for _, args := range [][]string{
		{"serve", "--storage.dsn=postgres://a:hush@127.0.0.1:1/b"}, {"audit", "verify", "--storage.dsn=postgres://a@127.0.0.1:1/b?password=hush"},
		{"storage", "copy", "--from=sqlite:x", "--to=postgres://a:hush@127.0.0.1:1/b"}, {"storage", "migrate", "--storage.dsn=postgresql://a:hush@127.0.0.1:1/b"},
	} {
		r := backout(t, nil, args...)
		if r.status != 2 || !strings.Contains(r.stderr, "must not contain a password") || !strings.Contains(r.stderr, "try: postgres://USER@HOST/DATABASE?passfile=FILE") || strings.Contains(r.stdout+r.stderr, "hush") {
			t.Errorf("%q: %+v", args, r)
		}
	}
}
