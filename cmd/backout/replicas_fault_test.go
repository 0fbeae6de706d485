package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/remediation/comms/slack/chattest"
	"github.com/locotoki/backout/remediation/crashtest"
	"github.com/locotoki/backout/remediation/store/storetest"
)

// sql runs statements in the site's database as its superuser.
func (s *site) sql(statements string) {
	s.t.Helper()
	c, err := pgx.Connect(s.t.Context(), s.server.DSN())
	s.must(err)
	defer c.Close(s.t.Context()) //nolint:errcheck // nothing is left to do by it
	storetest.Exec(s.t, c, statements)
}

// pair starts both replicas, and returns the one that acts first.
func (s *site) pair() (holder, other *process) {
	s.t.Helper()
	a, b := s.start("a"), s.start("b")
	s.until("somebody acts", func() bool { return a.acts() != "" })
	if a.acts() == "b" {
		return b, a
	}
	return a, b
}

func TestAProcessThatIsKilledAtAnyCallIsReplaced(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for where, after := range map[string]bool{"before": false, "after": true} {
		for n := range crashtest.Points(t) {
			reached := s.killedAt(n+1, after)
			if t.Failed() {
				t.Fatalf("killed %s what call %d does", where, n+1)
			}
			if reached {
				continue
			}
			if n < 2 {
				t.Errorf("only %d calls", n)
			}
			break
		}
	}
}

// killedAt lives one life in which the replica that acts is killed at its nth call to the
// flag's server, and reports whether there were so many before its step was verified.
func (s *site) killedAt(n int, after bool) (reached bool) {
	s.t.Helper()
	holder, other := s.pair()
	inside, release := make(chan struct{}), make(chan struct{})
	left := n
	var mu sync.Mutex
	s.flag.mu.Lock()
	s.flag.called = func(is bool) {
		mu.Lock()
		stops := false
		if is == after {
			left--
			stops = left == 0
		}
		mu.Unlock()
		if stops {
			close(inside)
			<-release
		}
	}
	s.flag.mu.Unlock()
	if status := other.alert(""); status != http.StatusOK {
		s.t.Fatalf("answered %d", status)
	}
	verified := func() bool { return other.count("verified") == 1 }
	s.until("a call or the end", func() bool {
		select {
		case <-inside:
			reached = true
		default:
		}
		return reached || verified()
	})
	if reached {
		holder.kill()
	}
	close(release)
	s.until("the step is verified", verified)
	if on, effects := s.flag.state(); on || effects != 1 {
		s.t.Errorf("the flag is on: %v, after %d effects", on, effects)
	}
	inOrderOf(s.t, exportOf(s.t, s.server))
	holder.kill()
	other.kill()
	s.sql("DROP SCHEMA backout CASCADE")
	s.flag.mu.Lock()
	s.flag.on, s.flag.effects, s.flag.called = true, 0, nil
	s.flag.mu.Unlock()
	return reached
}

// hook is a webhook's receiver, which counts what it took, by its id.
type hook struct {
	url  string
	down atomic.Bool

	mu   sync.Mutex
	took map[string]string
}

func newHook(t *testing.T) *hook {
	t.Helper()
	h := &hook{took: map[string]string{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || h.down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		h.mu.Lock()
		h.took[r.Header.Get("webhook-id")] = string(body)
		h.mu.Unlock()
	}))
	t.Cleanup(server.Close)
	h.url = server.URL + "/hook"
	return h
}

// missing are those of the notifications, by their label n, that the receiver did not take.
func (h *hook) missing(posted []string) (names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := slices.Collect(maps.Values(h.took))
	for _, name := range posted {
		if !slices.ContainsFunc(all, func(body string) bool { return strings.Contains(body, fmt.Sprintf("[\"n\",%q]", name)) }) {
			names = append(names, name)
		}
	}
	return names
}

// A rolling restart: one process after the other gets a configuration with one more channel. What the first one has for that
// channel waits while the other, which does not know it, is alone.
func TestARollingRestartWithANewChannelDropsNoMessageOfAProcess(t *testing.T) {
	t.Parallel()
	old, added := newHook(t), newHook(t)
	added.down.Store(true)
	s := newSite(t, func(s *site) {
		secretFile(s.t, filepath.Join(s.dir, "hook.secret"), slackSecret+"\n")
		s.extra = fmt.Sprintf("webhooks: [{name: old, url: %q, secret_file: hook.secret, kinds: [received]}]\n", old.url)
	})
	a, b := s.pair()
	var all, late []string // the posted notifications; those that the new channel has to get
	post := func(p *process, knows bool) {
		t.Helper()
		name := fmt.Sprint("n", len(all))
		if status := p.alert(fmt.Sprintf(`,"n":%q`, name)); status != http.StatusOK {
			t.Fatalf("answered %d", status)
		}
		if all = append(all, name); knows {
			late = append(late, name)
		}
	}
	end := func(p *process) {
		t.Helper()
		p.signal(syscall.SIGTERM)
		s.must(p.cmd.Wait())
	}
	restart := func(p *process) *process {
		t.Helper()
		end(p)
		file := filepath.Join(s.dir, p.name+".yml")
		raw, err := os.ReadFile(file)
		s.must(err)
		secretFile(t, file, strings.Replace(string(raw), "webhooks: [", fmt.Sprintf("webhooks: [{name: new, url: %q, secret_file: hook.secret, kinds: [received]}, ", added.url), 1))
		return s.start(p.name)
	}
	post(a, false)
	post(b, false)
	b = restart(b)
	post(a, false)
	for range 3 {
		post(b, true)
	}
	end(b)
	s.until("the one that does not know the new channel acts", func() bool { return a.acts() == a.name })
	post(a, false)
	// It drops what nobody has a channel for: a message of such a channel shows that it went by the others.
	s.sql(`INSERT INTO backout.outbox (n, channel, key, body)
		SELECT n + 1000000, 'webhook:gone', key, replace(body, 'webhook:new', 'webhook:gone') FROM backout.outbox WHERE channel = 'webhook:new' ORDER BY n LIMIT 1`)
	s.until("it drops what nobody has a channel for", func() bool {
		_, text := a.ask(http.MethodGet, "/api/v1/audit?limit=1000&kind=notified", "")
		return strings.Contains(text, "webhook:gone")
	})
	b = s.start(b.name)
	post(b, true)
	a = restart(a)
	post(a, true)
	post(b, true)
	added.down.Store(false)
	s.until("both channels have all", func() bool { return len(old.missing(all)) == 0 && len(added.missing(late)) == 0 })
	export := exportOf(t, s.server)
	if n := strings.Count(export, `"outcome":"dropped"`); n != 1 {
		t.Errorf("%d messages were dropped, want the one of no channel", n)
	}
	inOrderOf(t, export)
}

const slackSecret = "8f742231b10e8888abcd99yyyzzz85a5"

// The database's clock is five minutes ahead of both processes: all times go by it.
func TestWhatOneProcessShowedTheOtherTakesWhileBothClocksAreWrong(t *testing.T) {
	t.Parallel()
	slack := chattest.New(t)
	s := newSite(t, func(s *site) {
		s.playbook = strings.Replace(s.playbook, "settle: 5m}", "settle: 5m, approval: {timeout: 30m}}", 1)
		s.extra = fmt.Sprintf("slack: {url: %q, token_file: slack.token, signing_secret_file: slack.secret, users: [{id: U0ANN, name: ann}]}\n", slack.URL())
		secretFile(s.t, filepath.Join(s.dir, "slack.token"), chattest.Token+"\n")
		secretFile(s.t, filepath.Join(s.dir, "slack.secret"), slackSecret+"\n")
	})
	s.sql(`SET allow_system_table_mods = on;
		ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO right_clock_timestamp;
		CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.right_clock_timestamp() + interval ''5 minutes'''`)
	holder, other := s.pair()
	var both sync.WaitGroup
	for _, p := range []*process{holder, other} {
		both.Go(func() {
			if status := p.alert(""); status != http.StatusOK {
				t.Errorf("%s answered %d", p.name, status)
			}
		})
	}
	both.Wait()
	s.until("an approval is asked for", func() bool {
		_, text := other.ask(http.MethodGet, "/api/v1/incidents/inc-1", "")
		return strings.Contains(text, `"reason":"approval"`)
	})

	press, err := json.Marshal(map[string]any{
		"type": "block_actions", "user": map[string]string{"id": "U0ANN"}, "trigger_id": "t.1", "response_url": slack.ResponseURL(),
		"actions": []map[string]any{{"type": "button", "action_id": "backout_approve", "block_id": "x", "value": `{"incident":"inc-1","step":"1-flag_off"}`}},
	})
	s.must(err)
	body, stamp := url.Values{"payload": {string(press)}}.Encode(), fmt.Sprint(time.Now().Unix())
	sum := hmac.New(sha256.New, []byte(slackSecret))
	sum.Write([]byte("v0:" + stamp + ":" + body))
	pressed := func(p *process) int {
		return p.posts("/slack/interactions", body, map[string]string{"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": "v0=" + hex.EncodeToString(sum.Sum(nil))})
	}
	if status := pressed(holder); status != http.StatusOK {
		t.Errorf("a press on the holder: %d", status)
	}
	if status := pressed(other); status != http.StatusUnauthorized {
		t.Errorf("the same press again, on the other: %d", status)
	}

	_, page := holder.ask(http.MethodGet, "/incidents/inc-1", "")
	token := regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindStringSubmatch(page)
	if token == nil {
		t.Fatalf("the page has no form: %.2000s", page)
	}
	form := url.Values{"csrf": {token[1]}, "step": {"1-flag_off"}, "reason": {"because"}, "back": {"/"}}
	if status := other.posts("/incidents/inc-1/approve", form.Encode(), map[string]string{"Authorization": "Bearer 0123456789abcdef0123456789abcdef"}); status != http.StatusSeeOther {
		t.Errorf("the form on the other: %d", status)
	}
	s.until("the step is verified", func() bool { return other.count("verified") == 1 })
	if _, n := s.flag.state(); n != 1 {
		t.Errorf("%d effects", n)
	}
	if n := other.count("opened"); n != 1 {
		t.Errorf("%d incidents", n)
	}
	killed := time.Now()
	holder.kill()
	s.until("the other acts", func() bool { return other.acts() == other.name })
	if took := time.Since(killed); took > replicaLease+2*time.Second+busy {
		t.Errorf("taken over after %s", took)
	}
	inOrderOf(t, exportOf(t, s.server))
}

// posts sends a form and returns the status of the answer.
func (p *process) posts(path, body string, header map[string]string) (status int) {
	p.s.t.Helper()
	req, err := http.NewRequestWithContext(p.s.t.Context(), http.MethodPost, p.url+path, strings.NewReader(body))
	p.s.must(err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	client := &http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	p.s.must(err)
	defer resp.Body.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(resp.Body)
	p.s.must(err)
	if resp.StatusCode >= http.StatusBadRequest {
		p.s.t.Logf("%s %s: %d %.300s", p.name, path, resp.StatusCode, text)
	}
	return resp.StatusCode
}

func TestMonitoringIsLostOnceNoProcessIsAnswered(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(s *site) { s.playbook = strings.Replace(s.playbook, "max_age: 5m", "max_age: 30s", 1) })
	holder, other := s.pair()
	blind := func() bool {
		status, _ := other.ask(http.MethodPost, "/api/v1/webhook/alertmanager",
			`{"version":"4","groupKey":"w","receiver":"backout","alerts":[{"status":"firing","labels":{"alertname":"Watchdog","service":"shop"}}]}`)
		if status != http.StatusOK {
			t.Fatalf("answered %d", status)
		}
		_, text := other.ask(http.MethodGet, "/api/v1/audit?limit=1000&kind=blind", "")
		return strings.Contains(text, "Prometheus has not answered")
	}
	s.away.Store(holder.name, true)
	s.until("the one that is answered acts", func() bool {
		if blind() {
			t.Fatal("one replica without Prometheus is taken for blindness")
		}
		return other.acts() == other.name
	})
	s.away.Store(other.name, true)
	s.until("both are blind", blind)
}
