package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/locotoki/backout/remediation/store/storetest"
)

// BenchmarkManyServices starts serve with 1,000 playbooks, leaves it alone for a while with
// a scrape of its metrics every 15 s, reads the console, and lets a storm of 10,000 alerts
// for 500 services come. Times are wall clock and, in brackets, CPU of the process.
func BenchmarkManyServices(b *testing.B) {
	const services, hit, each = 1000, 500, 20
	c := newCrowd(b, services, "")
	for b.Loop() {
		rows := [][]string{{"", "measured", "wanted"}}
		row := func(what, measured, wanted string) { rows = append(rows, []string{what, measured, wanted}) }
		spent := func(cpu time.Duration) string { return fmt.Sprintf(" (%.2f s CPU)", cpu.Seconds()) }

		c.start("act")
		row("start to ready", seconds(c.ready)+spent(c.cpu()), "under 5 s")

		for i := range services { // as in the field: each has a rollout
			c.do(http.MethodPost, "/api/v1/rollout/start", fmt.Sprintf(`{"service":%q,"declare":true,"stage":"alpha","reason":"bench"}`, serviceName(i)))
		}
		for i := range services {
			c.do(http.MethodPost, "/api/v1/webhook/alertmanager", `{"version":"4","groupKey":"g","receiver":"backout","alerts":[{"status":"firing","labels":{"alertname":"Watchdog","service":"`+serviceName(i)+`","severity":"none"}}]}`)
		}
		begin, before := time.Now(), c.cpu()
		const idle = 30 * time.Second
		for time.Since(begin) < idle {
			c.get("/metrics")
			time.Sleep(15 * time.Second)
		}
		used := (c.cpu() - before).Seconds() / time.Since(begin).Seconds()
		row("idle, with a scrape every 15 s", fmt.Sprintf("%.1f%% of a core", used*100), "under 5%")
		row("memory when idle", fmt.Sprintf("%d MiB, %d at its highest", c.mib("VmRSS"), c.mib("VmHWM")), "under 500 MiB")
		for _, page := range []struct{ path, wanted string }{{"/", "under 200 ms"}, {"/metrics", ""}, {"/api/v1/status", ""}, {"/rollout", ""}} {
			took, cpu := c.timed(func() { c.get(page.path) })
			row("GET "+page.path+", median of 9", millis(took)+spent(cpu), page.wanted)
		}
		took, cpu := c.timed(func() {
			c.do(http.MethodPut, "/api/v1/freeze", `{"reason":"bench"}`)
			c.do(http.MethodDelete, "/api/v1/freeze?reason=bench", "")
		})
		row("freeze and thaw everything, median of 9", millis(took)+spent(cpu), "under 1 s")

		begin, before = time.Now(), c.cpu()
		c.storm(hit, each)
		row(fmt.Sprintf("%d alerts for %d services, all answered 200", hit*each, hit), seconds(time.Since(begin))+spent(c.cpu()-before), "under 1 min")
		c.until("each service is acted on", func() bool { off, _ := c.done(hit); return off == hit })
		row("first alert to the last flag off", seconds(time.Since(begin))+spent(c.cpu()-before), "")
		_, effects := c.done(services)
		row("effects", strconv.Itoa(effects), strconv.Itoa(hit))
		reactions := c.reactions()
		row("accepted to intent, median", millis(reactions[len(reactions)/2]), "under 1 s")
		row("accepted to intent, p99", millis(reactions[len(reactions)*99/100]), "")
		took, cpu = c.timed(func() { c.get("/") })
		row("GET / with 500 open incidents, median of 9", millis(took)+spent(cpu), "")
		row("memory after the storm", fmt.Sprintf("%d MiB, %d at its highest", c.mib("VmRSS"), c.mib("VmHWM")), "under 500 MiB")
		c.stop()
		c.must(os.Remove(filepath.Join(c.dir, "backout.db")))

		row("check, 1,000 playbooks", c.command("check", c.args...), "")
		row("rules generate, 1,000 playbooks", c.command("rules", append([]string{"generate", "--output=" + filepath.Join(c.dir, "made")}, c.args[1:]...)...), "under 60 s")
		printTable(b, "1,000 services in one process, SQLite", rows)
	}
}

// printTable prints rows, the first of which are the columns' names.
func printTable(b *testing.B, title string, rows [][]string) {
	b.Helper()
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
	for _, r := range rows {
		fmt.Fprintf(w, "  %s\n", strings.Join(r, "\t")) //nolint:errcheck // a Builder takes all
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	fmt.Printf("\n%s\n%s\n", title, out.String())
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
func millis(d time.Duration) string  { return fmt.Sprintf("%.0f ms", d.Seconds()*1000) }

// timed is the median of nine times that do takes, and of the CPU that serve spends.
func (c *crowd) timed(do func()) (took, cpu time.Duration) {
	var all, spent []time.Duration
	for range 9 {
		begin, before := time.Now(), c.cpu()
		do()
		all, spent = append(all, time.Since(begin)), append(spent, c.cpu()-before)
	}
	slices.Sort(all)
	slices.Sort(spent)
	return all[4], spent[4]
}

// command runs backout and returns how long it took.
func (c *crowd) command(name string, args ...string) string {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), program(c.t), append([]string{name}, args...)...)
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s: %v\n%.2000s", name, err, out)
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return fmt.Sprintf("%s (%.1f s CPU)", seconds(time.Since(begin)), cpu.Seconds())
}

// cpu is what the process has used so far.
func (c *crowd) cpu() time.Duration { return storetest.CPU(c.t, c.cmd.Process.Pid) }

// mib is a memory figure of the process.
func (c *crowd) mib(key string) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	c.must(err)
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, key+":"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			c.must(err)
			return n >> 10
		}
	}
	c.t.Fatalf("no %s", key)
	return 0
}

// reactions are the times from accepted to the first intent of each incident, sorted.
func (c *crowd) reactions() (out []time.Duration) {
	opened := map[string]time.Time{}
	for _, en := range c.entries("opened") {
		opened[en.Incident] = en.Time
	}
	for _, en := range c.entries("intent") {
		out = append(out, en.Time.Sub(opened[en.Incident]))
	}
	slices.Sort(out)
	return out
}
