package demo

import (
	"bytes"
	"context"
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
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/locotoki/backout/remediation/audit"
)

// connections are how many posters there are, each with a connection of its own.
const connections = 16

// notifications are how many backout has taken when its memory is looked at.
const notifications = 100_000

// BenchmarkDurableAccepts posts a captured notification of three alerts, with
// fresh alerts each time, to a running backout, and to a handler that
// forks /bin/true for each POST, in turns.
func BenchmarkDurableAccepts(b *testing.B) {
	template, err := os.ReadFile(filepath.Join(shared.source, "testdata", "payloads", "am034-grouped-firing-1.json"))
	if err != nil {
		b.Fatal(err)
	}
	s := benchStack(b, "bench-accept", "observe")
	forker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		if err == nil {
			err = exec.CommandContext(r.Context(), "/bin/true").Run()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	defer forker.Close()
	for b.Loop() {
		hook := s.url("backout") + "/api/v1/webhook/alertmanager"
		posters := newPosters(template)
		posters.run(b, hook, s.token["am"], connections*20) // warm up
		posters.run(b, forker.URL, "", connections*20)
		var ours, forks load
		for range 4 {
			ours.add(posters.run(b, hook, s.token["am"], notifications/10))
			forks.add(posters.run(b, forker.URL, "", 2_000))
		}
		ours.add(posters.run(b, hook, s.token["am"], notifications-ours.count()))
		rss, peak := memory(b, s.serve.cmd.Process.Pid)
		ratio := ours.rate() / forks.rate()
		b.ReportMetric(ratio, "ratio")
		table(b, "Durable accepts: SQLite, synchronous=FULL, 16 connections, loopback, 3 alerts a notification", [][]string{
			{"", "measured", "wanted"},
			{"backout, notifications/s", fmt.Sprintf("%.0f", ours.rate()), ""},
			{"fork of /bin/true, POSTs/s", fmt.Sprintf("%.0f", forks.rate()), ""},
			{"ratio", fmt.Sprintf("%.1f", ratio), "2 or more"},
			{"backout, median", ms(ours.quantile(0.5)), ""},
			{"backout, p99", ms(ours.quantile(0.99)), "under 25ms"},
			{fmt.Sprintf("memory after %d notifications", ours.count()), mib(rss), "under 100MiB"},
			{"memory at its highest", mib(peak), ""},
		})
	}
}

// pairs are how many times the flag is turned off either way.
const pairs = 10

// BenchmarkFlagOff turns a flag off by a notification to backout, and by
// editing .env and running compose, in turns on the same service and for both
// generations of compose. The time ends when the service itself serves the flag as off.
func BenchmarkFlagOff(b *testing.B) {
	for _, tool := range []string{"docker-compose", "docker-compose2"} {
		b.Run(tool, func(b *testing.B) { flagOffAgainst(b, tool) })
	}
}

func flagOffAgainst(b *testing.B, tool string) {
	path, err := exec.LookPath(tool)
	if err != nil {
		b.Fatalf("%v; try: make bench", err)
	}
	// backout asks the same tool as the human: what PATH calls docker-compose.
	bin := b.TempDir()
	must(b, os.Symlink(path, filepath.Join(bin, "docker-compose")))
	b.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	s := benchStack(b, "bench-"+tool, "act")
	s.tools.compose = filepath.Join(bin, "docker-compose")
	ctx := b.Context()
	must(b, s.up(ctx))
	for b.Loop() {
		var ours, theirs, ratios, reactions []time.Duration
		for i := range pairs {
			must(b, s.flagOn(ctx))
			took, reaction := s.flagOffByBackout(b, i)
			ours, reactions = append(ours, took), append(reactions, reaction)
			must(b, s.flagOn(ctx))
			theirs = append(theirs, s.flagOffByCompose(b))
			ratios = append(ratios, time.Duration(float64(time.Second)*ours[i].Seconds()/theirs[i].Seconds()))
		}
		ratio := median(ratios).Seconds()
		b.ReportMetric(ratio, "ratio")
		b.ReportMetric(float64(median(reactions).Microseconds())/1000, "reaction-ms")
		table(b, fmt.Sprintf("Flag served off: the same service, %d pairs, %s", pairs, tool), [][]string{
			{"", "measured", "wanted"},
			{"backout, POST to flag off, median", ms(median(ours)), ""},
			{tool + " up -d to flag off, median", ms(median(theirs)), ""},
			{"ratio of a pair, median", fmt.Sprintf("%.2f", ratio), "1 or less"},
			{"accepted to first intent, median", ms(median(reactions)), "under 5ms"},
		})
	}
}

// benchStack starts backout alone, with a Prometheus that answers every
// question with 1: beyond each threshold, alive, and scraped a second ago.
func benchStack(b *testing.B, name, mode string) *stack {
	b.Helper()
	prom := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[%d,"1"]}]}}`, time.Now().Unix())
	}))
	b.Cleanup(prom.Close)
	s := newTestStack(b, name, func(set *settings) { set.mode, set.limits, set.plan = mode, manyBreaches, steps("flag_off") })
	cfg, err := os.ReadFile(s.path("backout.yml"))
	must(b, err)
	cfg = bytes.Replace(cfg, []byte(s.url("prometheus")), []byte(prom.URL), 1)
	must(b, os.WriteFile(s.path("backout.yml"), cfg, 0o600))
	must(b, s.startBackout(b.Context()))
	return s
}

// flagOffByBackout posts a breach and returns how long it took until the
// service served the flag as off, and from the accept to the first intent.
func (s *stack) flagOffByBackout(b *testing.B, round int) (took, reaction time.Duration) {
	b.Helper()
	ctx := b.Context()
	body, err := notification(breach(), fmt.Sprintf("bench-%d-%d", round, time.Now().UnixNano()))
	must(b, err)
	l := &log{stack: s}
	must(b, l.refresh(ctx))
	seen := len(l.entries)
	var opened, intent, outcome *audit.Entry
	begin := time.Now()
	must(b, s.post(ctx, s.client, body))
	must(b, await(ctx, generous, 2*time.Millisecond, func(ctx context.Context) error {
		if err := l.refresh(ctx); err != nil {
			return err
		}
		fresh := log{entries: l.entries[seen:]}
		of := func(kind audit.Kind) *audit.Entry {
			return fresh.find(func(e *audit.Entry) bool { return e.Kind == kind })
		}
		opened, intent, outcome = of(audit.KindOpened), of(audit.KindIntent), of(audit.KindOutcome)
		if outcome == nil {
			return fmt.Errorf("no outcome among %d entries", len(fresh.entries))
		}
		return nil
	}))
	s.untilServedOff(b)
	took = time.Since(begin)
	inc := s.untilStepVerified(b)
	_, err = s.command(ctx, "incident", "close", inc.ID, "--reason=measured")
	must(b, err)
	return took, intent.Time.Sub(opened.Time)
}

// flagOffByCompose does what a runbook says: edit .env, docker-compose up -d.
func (s *stack) flagOffByCompose(b *testing.B) time.Duration {
	b.Helper()
	begin := time.Now()
	file := s.path("project", ".env")
	text, err := os.ReadFile(file)
	must(b, err)
	must(b, os.WriteFile(file, []byte(strings.Replace(string(text), flagName+"=1", flagName+"=0", 1)), 0o600))
	must(b, s.compose(b.Context(), "up", "-d", "social-intel"))
	s.untilServedOff(b)
	return time.Since(begin)
}

func (s *stack) untilServedOff(b *testing.B) {
	b.Helper()
	must(b, await(b.Context(), generous, 2*time.Millisecond, func(ctx context.Context) error {
		value, err := s.flag(ctx)
		if err == nil && value != "0" {
			err = fmt.Errorf("the flag is %q", value)
		}
		return err
	}))
}

// load is what a number of POSTs took.
type load struct {
	each []time.Duration
	all  time.Duration
}

func (l *load) add(o load) {
	l.each = append(l.each, o.each...)
	l.all += o.all
}

func (l *load) count() int    { return len(l.each) }
func (l *load) rate() float64 { return float64(len(l.each)) / l.all.Seconds() }
func (l *load) quantile(q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(l.each))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// posters post a template over and over, each time with alerts that nobody has
// seen: each has a label of its own.
type posters struct {
	pieces [][]byte // the template, cut at its alerts' labels
	next   int
}

func newPosters(template []byte) *posters {
	var compact bytes.Buffer
	if err := json.Compact(&compact, template); err != nil {
		panic(err)
	}
	p := &posters{}
	const key = `"labels":{`
	rest := compact.Bytes()
	for {
		at := bytes.Index(rest, []byte(key))
		if at < 0 {
			p.pieces = append(p.pieces, rest)
			return p
		}
		p.pieces = append(p.pieces, rest[:at+len(key)])
		rest = rest[at+len(key):]
	}
}

// body is the template with alerts number n and on.
func (p *posters) body(n int) []byte {
	var out bytes.Buffer
	for i, piece := range p.pieces {
		if i > 0 {
			fmt.Fprintf(&out, `"bench":"%d",`, n*len(p.pieces)+i)
		}
		out.Write(piece)
	}
	return out.Bytes()
}

// run posts n notifications over all connections.
func (p *posters) run(b *testing.B, url, token string, n int) load {
	b.Helper()
	each := make([]time.Duration, n)
	errs := make([]error, connections)
	first := p.next
	p.next += n
	var wg sync.WaitGroup
	begin := time.Now()
	for c := range connections {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext}}
			defer client.CloseIdleConnections()
			for i := c; i < n && errs[c] == nil; i += connections {
				body := p.body(first + i)
				start := time.Now()
				errs[c] = postTo(b.Context(), client, url, token, body)
				each[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	for _, err := range errs {
		must(b, err)
	}
	return load{each: each, all: took}
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// memory is a process's resident memory, now and at its highest, in bytes.
func memory(b *testing.B, pid int) (now, highest int64) {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(b, err)
	value := func(key string) int64 {
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == key {
				n, err := strconv.ParseInt(f[1], 10, 64)
				must(b, err)
				return n * 1024
			}
		}
		b.Fatalf("/proc/%d/status has no %s", pid, key)
		return 0
	}
	return value("VmRSS:"), value("VmHWM:")
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1fms", float64(d.Microseconds())/1000) }
func mib(n int64) string        { return fmt.Sprintf("%.0fMiB", float64(n)/(1<<20)) }

// table prints rows below a title.
func table(b *testing.B, title string, rows [][]string) {
	b.Helper()
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
	for _, r := range rows {
		_, err := fmt.Fprintf(w, "  %s\n", strings.Join(r, "\t"))
		must(b, err)
	}
	must(b, w.Flush())
	_, err := fmt.Fprintf(os.Stdout, "\n%s\n%s\n", title, out.String())
	must(b, err)
}
