package backtest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action"
	"github.com/locotoki/backout/remediation/observe"
)

// kinds are the kinds of actions without clients: nothing is run.
func kinds() []remediation.ActionKind { return action.Kinds(action.Tools{}) }

func parse(t testing.TB, source []byte) *alerts.Playbook {
	t.Helper()
	var ak []alerts.ActionKind
	for _, k := range kinds() {
		ak = append(ak, k)
	}
	pb, err := alerts.Parse("playbook.yaml", source, ak)
	if err != nil {
		t.Fatal(err)
	}
	return pb
}

// builtIn is the built-in playbook, with replacements of old and new text in turn.
func builtIn(t testing.TB, edits ...string) *alerts.Playbook {
	t.Helper()
	source, err := os.ReadFile("../../alerts/playbook.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, []byte(strings.NewReplacer(edits...).Replace(string(source))))
}

// slowly makes the built-in playbook one of a service that is scraped every minute.
func slowly(t testing.TB) *alerts.Playbook {
	return builtIn(t, "scrape_interval: 15s", "scrape_interval: 1m", "[2m]", "[4m]", "[1m]", "[4m]",
		"recovery: {window: 2m}", "recovery: {window: 4m}", "settle: 5m", "settle: 12m")
}

// synthetic makes up the series that the built-in playbook reads: a service of two
// instances, with days and nights, bad times, restarts, outages and a rollout.
type synthetic struct {
	r     *rand.Rand
	from  time.Time
	every time.Duration          // between two scrapes
	bad   map[string][]time.Time // when each bad time begins and ends, in turn
	sum   map[string]float64     // counters, by series
	// born are the error counters that exist: they begin with their first error.
	born map[string]bool
	// series have a value for each scrape of the present part; NaN is none.
	series  map[string][]float64
	scrapes int
}

func newSynthetic(seed uint64, every time.Duration, from, to time.Time) *synthetic {
	s := &synthetic{
		r: rand.New(rand.NewPCG(seed, 1)), from: from, every: every, bad: map[string][]time.Time{}, sum: map[string]float64{}, born: map[string]bool{}, series: map[string][]float64{},
	}
	// Each kind of trouble comes about three times a day, and lasts from seconds to an hour.
	for _, kind := range []string{"errors", "some errors", "slow", "cpu", "memory", "service cpu", "p1", "cache", "vectors", "down", "away", "blind"} {
		for at := from; ; {
			at = at.Add(time.Duration(float64(8*time.Hour) * s.r.ExpFloat64()))
			if !at.Before(to) {
				break
			}
			end := at.Add(20*time.Second + time.Duration(float64(10*time.Minute)*s.r.ExpFloat64()))
			s.bad[kind] = append(s.bad[kind], at, end)
			at = end
		}
	}
	return s
}

// in reports whether a kind of trouble is on.
func (s *synthetic) in(kind string, t time.Time) bool {
	for i := 0; i < len(s.bad[kind]); i += 2 {
		if !t.Before(s.bad[kind][i]) && t.Before(s.bad[kind][i+1]) {
			return true
		}
	}
	return false
}

// name writes a series as OpenMetrics and promtool do.
func name(metric string, pairs []string) string {
	var b strings.Builder
	b.WriteString(metric + "{")
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(pairs[i] + "=" + strconv.Quote(pairs[i+1]))
	}
	return b.String() + "}"
}

func (s *synthetic) put(v float64, metric string, pairs ...string) {
	key := name(metric, pairs)
	for len(s.series[key]) < s.scrapes {
		s.series[key] = append(s.series[key], math.NaN())
	}
	s.series[key] = append(s.series[key], v)
}

// count adds to a counter, and puts it.
func (s *synthetic) count(more float64, metric string, pairs ...string) {
	key := name(metric, pairs)
	s.sum[key] += more
	s.put(s.sum[key], metric, pairs...)
}

var latencyBounds = []float64{0.05, 0.1, 0.2, 0.4, 0.8, 2, math.Inf(1)}

// scrape puts the samples of one scrape.
func (s *synthetic) scrape(t time.Time) {
	day := 0.6 + 0.4*math.Sin(float64(t.Unix()%86400)/86400*2*math.Pi)
	for n, instance := range []string{"a", "b"} {
		own := []string{"job", "social-intel", "instance", instance}
		if s.in("down", t) && n == 0 {
			s.put(0, "up", own...)
			delete(s.born, instance) // it restarts: its counters begin again
			for key := range s.sum {
				if strings.Contains(key, `job="social-intel",instance="a"`) {
					delete(s.sum, key)
				}
			}
			continue
		}
		s.put(1, "up", own...)
		requests := math.Round(4*s.every.Seconds()*day + 6*s.r.NormFloat64())
		share := 0.0002
		switch {
		case s.in("errors", t):
			share = 0.06
		case s.in("some errors", t):
			share = 0.011
		}
		errors := 0.0
		for range int(requests) {
			if s.r.Float64() < share {
				errors++
			}
		}
		s.count(requests-errors, "si_requests_total", append(own, "status", "success", "endpoint", "/analytics/x")...)
		if errors > 0 || s.born[instance] {
			s.born[instance] = true
			s.count(errors, "si_requests_total", append(own, "status", "error", "endpoint", "/analytics/x")...)
		}
		slow := 0.01
		if s.in("slow", t) {
			slow = 0.12
		}
		for _, b := range latencyBounds {
			share := 1 - slow*math.Exp(-b)
			if b < 0.8 {
				share = (1 - slow) * (1 - math.Exp(-b*12))
			}
			le := "+Inf"
			if !math.IsInf(b, 1) {
				le = strconv.FormatFloat(b, 'f', -1, 64)
			} else {
				share = 1
			}
			s.count(math.Floor(requests*share), "si_latency_seconds_bucket", append(own, "endpoint", "/analytics/x", "le", le)...)
		}
		s.count(requests, "si_latency_seconds_count", append(own, "endpoint", "/analytics/x")...)
		s.count(requests/4, "si_latency_seconds_count", append(own, "endpoint", "/v1/recommendations")...)
		s.count(requests/4*0.28, "si_latency_seconds_sum", append(own, "endpoint", "/v1/recommendations")...)
		p1 := 0.0
		if s.in("p1", t) && s.r.IntN(8) == 0 {
			p1 = 1
		}
		s.count(p1, "si_p1_errors_total", own...)
	}
	busy := func(kind string, normal, bad float64) float64 {
		if s.in(kind, t) {
			return bad
		}
		return normal + 0.05*s.r.Float64()
	}
	node := []string{"job", "node-exporter", "instance", "analytics-db-1:9100", "mode", "idle", "cpu", "0"}
	if !s.in("away", t) {
		s.count(s.every.Seconds()*(1-busy("cpu", 0.4, 0.93)), "node_cpu_seconds_total", node...)
	}
	box := []string{"job", "cadvisor", "id", "/x", "container_label_com_docker_compose_service", "social-intel"}
	s.put(1e9*busy("memory", 0.5, 0.95), "container_memory_working_set_bytes", box...)
	s.put(1e9, "container_spec_memory_limit_bytes", box...)
	s.count(s.every.Seconds()*busy("service cpu", 0.5, 0.97), "container_cpu_usage_seconds_total", box...)
	s.put(100000, "container_spec_cpu_quota", box...)
	s.put(100000, "container_spec_cpu_period", box...)
	miss := busy("cache", 0.1, 0.6)
	s.count(100*(1-miss), "redis_keyspace_hits_total", "job", "redis-exporter")
	s.count(100*miss, "redis_keyspace_misses_total", "job", "redis-exporter")
	far := busy("vectors", 0, 0.2)
	for _, b := range []float64{0.05, 0.1, 0.5, math.Inf(1)} {
		share := map[bool]float64{true: 1 - far, false: 1}[b < 0.5]
		s.count(40*share, "rest_responses_duration_seconds_bucket", "job", "qdrant", "endpoint", "/collections/c/points/search", "le", map[bool]string{true: "+Inf", false: strconv.FormatFloat(b, 'f', -1, 64)}[math.IsInf(b, 1)])
	}
	s.count(40, "rest_responses_duration_seconds_count", "job", "qdrant", "endpoint", "/collections/c/points/search")
	if !s.in("blind", t) {
		s.put(1, "up", "job", "backout", "instance", "backout")
		stage := s.stage(t)
		for _, name := range append([]string{"none"}, stages...) {
			on := 0.0
			if name == stage {
				on = 1
			}
			s.put(on, "rollout_stage", "job", "backout", "instance", "backout", "service", "social-intel", "stage", name)
		}
	}
	s.scrapes++
}

var stages = []string{"alpha", "beta", "gamma", "delta", "full"}

// stage is the rollout's: every stage is on for seven hours, then none for one.
func (s *synthetic) stage(t time.Time) string {
	const each = 7 * time.Hour
	round := t.Sub(s.from) % (each*time.Duration(len(stages)) + time.Hour)
	if i := int(round / each); i < len(stages) {
		return stages[i]
	}
	return "none"
}

// fill makes up the scrapes from one moment to another.
func (s *synthetic) fill(from, to time.Time) {
	s.scrapes = 0
	clear(s.series)
	for at := from; at.Before(to); at = at.Add(s.every) {
		s.scrape(at)
	}
}

// number writes a value as both formats read it.
func number(v float64) string { return strconv.FormatFloat(v, 'g', 10, 64) }

// blocks adds the present part to a storage of Prometheus in a folder.
func (s *synthetic) blocks(t testing.TB, dir string, from time.Time) {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "*.om")
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriterSize(file, 1<<20)
	keys := make([]string, 0, len(s.series))
	for key := range s.series {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		for i, v := range s.series[key] {
			if !math.IsNaN(v) {
				fmt.Fprintf(w, "%s %s %d\n", key, number(v), from.Add(time.Duration(i)*s.every).Unix()) //nolint:errcheck // Flush says so
			}
		}
	}
	fmt.Fprintln(w, "# EOF") //nolint:errcheck // Flush says so
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	file.Close()
	command(t, "promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=24h", file.Name(), dir)
	if err := os.Remove(file.Name()); err != nil {
		t.Fatal(err)
	}
}

// command runs a program that the tests need.
func command(t testing.TB, program string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is not in PATH: run the tests by make test, which fetches it", program)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "GOGC=800") // else much of promtool's time is collecting
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
}

// serve runs a real Prometheus on a storage, and returns a client.
func serve(t testing.TB, data string) (*observe.Prometheus, string) {
	t.Helper()
	dir := t.TempDir()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("prometheus is not in PATH: run the tests by make test, which fetches it")
	}
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	var said bytes.Buffer
	cmd := exec.Command(program, "--config.file="+config, "--storage.tsdb.path="+data, "--storage.tsdb.retention.time=100y",
		"--web.listen-address="+address, "--log.level=warn")
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Log(err)
		}
		t.Log(<-ended)
	})
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	for ready := false; !ready; {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("prometheus ended: %v\n%s", err, said.String())
		case <-time.After(50 * time.Millisecond):
		}
		if resp, err := client.Get("http://" + address + "/-/ready"); err == nil {
			ready = resp.StatusCode == http.StatusOK
			resp.Body.Close()
		}
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 4, DisableCompression: true} // as the command does on one machine
	t.Cleanup(transport.CloseIdleConnections)
	p, err := observe.NewPrometheus("http://"+address, 2*time.Minute, transport, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p, "http://" + address
}
