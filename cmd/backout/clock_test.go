//go:build dist

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locotoki/backout/remediation/audit"
)

// clockOff is the variable that has how many seconds the clock of the program of offClock is off.
const clockOff = "CLOCK_OFF"

// offClock is the program, built with a standard library whose time.Now adds the seconds of CLOCK_OFF. So everything in the
// process goes by the wrong clock: backout, its libraries and its log. What is monotonic stays right, as on a machine
// whose clock is off.
func offClock(t testing.TB) string {
	t.Helper()
	path, err := builtOff()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var builtOff = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../../.cache/test/clock-off/backout")
	if err != nil {
		return "", err
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the standard library: %w", err)
	}
	lib, made := filepath.Join(strings.TrimSpace(string(root)), "src", "time"), filepath.Dir(path)
	src, err := os.ReadFile(filepath.Join(lib, "time.go"))
	if err != nil {
		return "", err
	}
	const now = "\tsec, nsec, mono := runtimeNow()\n"
	if n := strings.Count(string(src), "func Now() Time {\n"+now); n != 1 {
		return "", fmt.Errorf("time.Now of %s does not begin as expected: read it again, and change this test", runtime.Version())
	}
	overlay := map[string]string{}
	for name, text := range map[string]string{
		"time.go": strings.Replace(string(src), "func Now() Time {\n"+now, "func Now() Time {\n"+now+"\tsec += clockOff\n", 1),
		"off.go": "package time\n\nimport \"syscall\"\n\nvar clockOff = func() int64 {\n\ts, _ := syscall.Getenv(\"" + clockOff + "\")\n" +
			"\tn, _ := atoi(s)\n\treturn int64(n)\n}()\n",
	} {
		file := filepath.Join(made, name)
		if err := os.MkdirAll(made, 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return "", err
		}
		overlay[filepath.Join(lib, name)] = file
	}
	raw, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		return "", err
	}
	list := filepath.Join(made, "overlay.json")
	if err := os.WriteFile(list, raw, 0o600); err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-overlay="+list, "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build backout with a clock that is off: %w\n%s", err, out)
	}
	return path, nil
})

// One of two processes has a clock that is five minutes off, and each of them acts for a while.
func TestAProcessWhoseClockIsOffChangesNothing(t *testing.T) {
	t.Parallel()
	offClock(t) // takes minutes the first time
	for _, off := range []time.Duration{5 * time.Minute, -5 * time.Minute} {
		t.Run(off.String(), func(t *testing.T) {
			t.Parallel()
			const answer = 20 * time.Second // for an approval
			s := newSite(t, func(s *site) {
				s.services = 3
				s.playbook = strings.Replace(s.playbook, "settle: 5m}", fmt.Sprintf("settle: 5m, approval: {timeout: %s}}", answer), 1)
				s.program = func(name string, args []string) *exec.Cmd {
					if name != "a" {
						return exec.Command(program(s.t), args...)
					}
					cmd := exec.Command(offClock(s.t), args...)
					cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%.0f", clockOff, off.Seconds()))
					return cmd
				}
			})
			begun := time.Now()
			a := s.start("a")
			s.until("a acts", func() bool { return a.acts() == "a" })
			if said := regexp.MustCompile(`(?m)^time=(\S+)`).FindStringSubmatch(a.said()); said == nil {
				t.Fatalf("its log has no time: %.300s", a.said())
			} else if at, err := time.Parse(time.RFC3339, said[1]); err != nil || (at.Sub(begun)-off).Abs() > patience {
				t.Fatalf("its clock is not off: %s, %v", said[1], err)
			}
			b := s.start("b")
			service := func(i int) string { return s.books[i].service }

			// One alert to both: one incident, which waits for an approval as long as the playbook says.
			fires := func(i int, both ...*process) {
				t.Helper()
				for _, p := range both {
					if status := p.alertOf(service(i), ""); status != http.StatusOK {
						t.Fatalf("%s answered %d", p.name, status)
					}
				}
			}
			fires(0, a, b)
			fires(1, b, a)
			s.until("an approval is asked for", func() bool { return len(b.approvals(service(0))) > 0 })
			incident := b.entries("opened", service(0))[0].Incident
			if status, text := b.ask(http.MethodPost, "/api/v1/incidents/"+incident+"/approve", `{"step":"1-flag_off","reason":"yes"}`); status != http.StatusOK {
				t.Fatalf("the approval on b: %d %s", status, text)
			}
			s.until("the step is verified", func() bool { return len(b.entries("verified", service(0))) == 1 })
			skipped := func(i int) {
				t.Helper()
				s.until("nobody has approved", func() bool { return len(b.entries("denied", service(i))) > 0 })
				held, denied := b.approvals(service(i))[0], b.entries("denied", service(i))[0]
				if took := denied.Time.Sub(held.Time); took < answer || took > answer+30*time.Second+busy {
					t.Errorf("%s: it waited %s for an approval, not %s", service(i), took, answer)
				}
			}
			skipped(1)

			// A freeze that one sets holds on the other, and ends when it says.
			until := time.Now().Add(10 * time.Second)
			if status, text := a.ask(http.MethodPut, "/api/v1/freeze", fmt.Sprintf(`{"reason":"r","until":%q}`, until.UTC().Format(time.RFC3339Nano))); status != http.StatusOK {
				t.Fatalf("a freeze on a: %d %s", status, text)
			}
			for _, p := range []*process{a, b} {
				if _, text := p.ask(http.MethodGet, "/api/v1/freeze", ""); !strings.Contains(text, `"reason":"r"`) {
					t.Errorf("%s does not know the freeze: %s", p.name, text)
				}
			}
			for _, p := range []*process{a, b} {
				s.until("the freeze ends", func() bool {
					_, text := p.ask(http.MethodGet, "/api/v1/freeze", "")
					return !strings.Contains(text, `"reason":"r"`)
				})
				if now := time.Now(); now.Before(until) || now.After(until.Add(busy)) {
					t.Errorf("on %s the freeze ends %s after its end", p.name, now.Sub(until))
				}
			}

			// Each takes over from the other within the lease.
			for _, c := range []struct{ from, to *process }{{a, b}, {b, nil}} {
				if c.to == nil {
					a = s.start("a")
					c.to = a
				}
				killed := time.Now()
				c.from.kill()
				s.until(c.to.name+" acts", func() bool { return c.to.acts() == c.to.name })
				if took := time.Since(killed); took > replicaLease+2*time.Second+busy {
					t.Errorf("%s took over after %s", c.to.name, took)
				}
			}
			b = s.start("b")
			fires(2, b, a)
			skipped(2)

			if on, n := s.books[0].flag.state(); on || n != 1 {
				t.Errorf("the approved flag is on: %v, after %d effects", on, n)
			}
			for i, want := range []int{1, 0, 0} {
				if _, n := s.books[i].flag.state(); n != want || len(b.entries("opened", service(i))) != 1 {
					t.Errorf("%s: %d effects, %d incidents", service(i), n, len(b.entries("opened", service(i))))
				}
			}
			export := exportOf(t, s.server)
			inOrderOf(t, export)
			for line := range strings.Lines(export) {
				var en audit.Entry
				s.must(json.Unmarshal([]byte(line), &en))
				if en.Time.Before(begun.Add(-time.Second)) || en.Time.After(time.Now().Add(time.Second)) {
					t.Errorf("an entry is not of the database's time: %s", line)
				}
			}
		})
	}
}

// entries are those of the audit log of one kind and service, the oldest first.
func (p *process) entries(kind, service string) (all []audit.Entry) {
	p.s.t.Helper()
	_, text := p.ask(http.MethodGet, "/audit/export?kind="+kind, "")
	for line := range strings.Lines(text) {
		var en audit.Entry
		p.s.must(json.Unmarshal([]byte(line), &en))
		if string(en.Kind) == kind && en.Service == service {
			all = append(all, en)
		}
	}
	return all
}

// approvals are the holds of a service's step that waits for an approval.
func (p *process) approvals(service string) []audit.Entry {
	p.s.t.Helper()
	return slices.DeleteFunc(p.entries("held", service), func(en audit.Entry) bool { return en.Detail["reason"] != "approval" })
}
