package unleash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

const (
	token    = "*:*.backout-hush-9b2e41"
	sdkToken = "default:production.sdk-hush-77c1"
)

// server is a real Unleash server with a database of its own on the tests' PostgreSQL. All
// tests of the package share it; each has flags of its own.
type server struct {
	url string
	dsn string // of its database
	cmd *exec.Cmd
	log bytes.Buffer
	end chan struct{} // closed when the process has ended
	// drop removes the database.
	drop func()
}

var start = sync.OnceValues(startServer)

func TestMain(m *testing.M) {
	code := m.Run()
	if started.Load() {
		s, _ := start()
		s.stop()
	}
	os.Exit(code)
}

var started atomic.Bool

func startServer() (*server, error) {
	started.Store(true)
	s := &server{end: make(chan struct{}), drop: func() {}}
	close(s.end)
	admin := os.Getenv("BACKOUT_POSTGRES_DSN")
	u, err := url.Parse(admin)
	if err != nil || u.Host == "" {
		return s, errors.New("BACKOUT_POSTGRES_DSN names no PostgreSQL; try: make test, or deploy/dev/postgres.sh with go test ./remediation/unleash")
	}
	program, err := exec.LookPath("unleash-server")
	if err != nil {
		return s, errors.New("unleash-server is not in PATH; try: deploy/dev/tools.sh")
	}
	database := fmt.Sprintf("backout_unleash_%d", os.Getpid())
	if err := sql(admin, "CREATE DATABASE "+database); err != nil {
		return s, err
	}
	s.drop = func() {
		if err := sql(admin, "DROP DATABASE "+database+" WITH (FORCE)"); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	u.Path = "/" + database
	s.dsn = u.String()
	for range 5 { // another program may take the port before it
		if err = s.serve(program); err == nil || !strings.Contains(err.Error(), "EADDRINUSE") {
			break
		}
	}
	return s, err
}

// serve starts the program on a free port and waits until it answers.
func (s *server) serve(program string) error {
	s.log.Reset()
	// Port 0 means 4242 to Unleash: a free one is found before.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.url = "http://" + l.Addr().String()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		return err
	}
	s.cmd = exec.Command(program)
	s.cmd.Env = append(os.Environ(), "DATABASE_URL="+s.dsn, "DATABASE_SSL=false", "HTTP_HOST=127.0.0.1", "HTTP_PORT="+port,
		"INIT_ADMIN_API_TOKENS="+token, "INIT_BACKEND_API_TOKENS="+sdkToken, "LOG_LEVEL=warn",
		// Nothing of it asks the network.
		"CHECK_VERSION=false", "SEND_TELEMETRY=false")
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.end = make(chan struct{})
	go func() {
		defer close(s.end)
		_ = s.cmd.Wait()
	}()
	// It migrates its database first, which takes seconds of a processor.
	for deadline := time.Now().Add(5 * time.Minute); ; {
		res, err := http.Get(s.url + "/health")
		if err == nil {
			text, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode == http.StatusOK && strings.Contains(string(text), `"health":"GOOD"`) {
				return nil
			}
		}
		select {
		case <-s.end:
			return fmt.Errorf("unleash-server ended:\n%s", s.log.String())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return errors.New("unleash-server does not answer")
		}
	}
}

func (s *server) stop() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Kill()
		<-s.end
	}
	s.drop()
}

func sql(dsn string, text string, args ...any) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, text, args...)
	return err
}

var flags atomic.Int64

// one is a flag of its own in the server's default project, and the action's view of it.
type one struct {
	*testing.T
	*server
	at alerts.UnleashFlag
}

// newFlag creates a flag that is off everywhere and has no strategy.
func newFlag(t *testing.T) *one {
	t.Helper()
	s, err := start()
	if err != nil {
		t.Fatal(err)
	}
	f := &one{t, s, alerts.UnleashFlag{Project: "default", Environment: "production", Name: fmt.Sprintf("recommendations-%d", flags.Add(1))}}
	f.call(http.MethodPost, "/api/admin/projects/default/features", map[string]string{"name": f.at.Name, "type": "release"}, nil)
	return f
}

// gradual adds a gradual rollout for some, as a person would.
func (f *one) gradual(percent int) *one {
	f.Helper()
	f.strategy(gradual, map[string]any{"parameters": map[string]string{"rollout": fmt.Sprint(percent), "stickiness": "default", "groupId": f.at.Name}})
	return f
}

// strategy adds a strategy and returns its id.
func (f *one) strategy(name string, more map[string]any) string {
	f.Helper()
	body := map[string]any{"name": name}
	for k, v := range more {
		body[k] = v
	}
	var got struct{ ID string }
	f.call(http.MethodPost, f.path("/strategies"), body, &got)
	return got.ID
}

func (f *one) turn(want state) *one {
	f.Helper()
	f.call(http.MethodPost, f.path("/"+string(want)), nil, nil)
	return f
}

func (f *one) path(rest string) string {
	return "/api/admin/projects/default/features/" + f.at.Name + "/environments/" + f.at.Environment + rest
}

// call is what others do. It fails the test if the server refuses.
func (f *one) call(method, path string, in, out any) {
	f.Helper()
	f.callAs(token, method, path, in, out)
}

func (f *one) callAs(secret, method, path string, in, out any) {
	f.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			f.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(f.Context(), method, f.url+path, body)
	if err != nil {
		f.Fatal(err)
	}
	req.Header.Set("Authorization", secret)
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{}).Do(req)
	if err != nil {
		f.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode > 299 {
		f.Fatalf("%s %s: %s %s %v", method, path, res.Status, text, err)
	}
	if out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			f.Fatalf("%s %s: %s: %v", method, path, text, err)
		}
	}
}

// state is everything that Unleash has of the flag in both of its environments.
func (f *one) state() string {
	f.Helper()
	var got struct {
		Environments []struct {
			Name       string
			Enabled    bool
			Strategies []map[string]any
		}
	}
	f.call(http.MethodGet, "/api/admin/projects/default/features/"+f.at.Name, nil, &got)
	var lines []string
	for _, e := range got.Environments {
		b, err := json.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		lines = append(lines, string(b))
	}
	return strings.Join(lines, "\n")
}

// events counts the changes of the flag that Unleash's own log has.
func (f *one) events() int {
	f.Helper()
	var got struct{ Total int }
	f.call(http.MethodGet, "/api/admin/search/events?feature=IS:"+f.at.Name, nil, &got)
	return got.Total
}

// served is what SDKs of the environment get of the flag: "off", or its rollouts.
func (f *one) served() string {
	f.Helper()
	var got struct {
		Features []struct {
			Name       string
			Enabled    bool
			Strategies []struct{ Parameters struct{ Rollout string } }
		}
	}
	f.callAs(sdkToken, http.MethodGet, "/api/client/features?namePrefix="+f.at.Name, nil, &got)
	for _, flag := range got.Features {
		if flag.Name != f.at.Name {
			continue
		}
		if !flag.Enabled {
			return "off"
		}
		var all []string
		for _, s := range flag.Strategies {
			all = append(all, s.Parameters.Rollout+"%")
		}
		return strings.Join(all, " ")
	}
	return "unknown"
}

// gets waits until SDKs get the flag so: the server caches what it tells them for a moment.
func (f *one) gets(want string) {
	f.Helper()
	var got string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if got = f.served(); got == want {
			return
		}
	}
	f.Errorf("SDKs get %q, want %q", got, want)
}

// client speaks to the server. It does not wait longer than a test has to.
func (f *one) client(secret string, transport http.RoundTripper) *Client {
	f.Helper()
	c, err := New(Options{URL: f.url + "/", Token: secret, Transport: transport, Now: time.Now, Wait: func(ctx context.Context, _ time.Duration) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
			return nil
		}
	}})
	if err != nil {
		f.Fatal(err)
	}
	return c
}

func (f *one) flag() alerts.Flag {
	return alerts.Flag{Name: "FEATURE_RECOMMENDATIONS", Off: "false", Unleash: &f.at}
}

func (f *one) off(transport http.RoundTripper) remediation.Action {
	f.Helper()
	a, err := f.client(token, transport).FlagOff(alerts.Target{}, f.flag())
	if err != nil {
		f.Fatal(err)
	}
	return a
}

func (f *one) share(transport http.RoundTripper, share string) remediation.Action {
	f.Helper()
	a, err := f.client(token, transport).FlagShare(alerts.Target{}, f.flag(), share)
	if err != nil {
		f.Fatal(err)
	}
	return a
}
