package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// tty is a writer that somebody looks at.
type tty struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *tty) Terminal() bool { return true }

func (t *tty) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(p)
}

func (t *tty) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// onTerminal runs a command whose output somebody looks at.
func onTerminal(t *testing.T, environ []string, args ...string) string {
	t.Helper()
	var stdout, stderr tty
	c := newCommands(environ, &stdout, &stderr)
	c.now = func() time.Time { return time.Date(2026, 1, 2, 15, 5, 0, 0, time.UTC) }
	if status := c.exec(t.Context(), args); status != 0 {
		t.Fatalf("%v: status %d: %s", args, status, stderr.String())
	}
	return stdout.String()
}

var escape = regexp.MustCompile("\x1b\\[[0-9;]*m")

func TestStatesHaveColoursOnATerminalThatWantsThem(t *testing.T) {
	for name, tc := range map[string]struct {
		environ  []string
		coloured bool
	}{
		"a terminal":                       {[]string{"TERM=xterm"}, true},
		"NO_COLOR":                         {[]string{"TERM=xterm", "NO_COLOR=1"}, false},
		"an empty NO_COLOR, which is none": {[]string{"NO_COLOR="}, true},
		"a terminal that cannot":           {[]string{"TERM=dumb"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			url := server(t, "", exchange{"GET /api/v1/incidents/inc-7", "", 200, settling},
				exchange{"GET /api/v1/incidents?limit=1000", "", 200, `{"incidents":[` + settling + `]}`})
			show := onTerminal(t, tc.environ, "incident", "show", "inc-7", "--url="+url)
			list := onTerminal(t, tc.environ, "incident", "list", "--url="+url)
			for _, text := range []string{show, list} {
				if strings.Contains(text, "\x1b[33msettling\x1b[0m") != tc.coloured || strings.Contains(text, "\x1b") != tc.coloured {
					t.Errorf("coloured %v is wanted: %q", tc.coloured, text)
				}
				fits(t, escape.ReplaceAllString(text, ""))
			}
			if strings.Contains(show, "\x1b[32mdone\x1b[0m") != tc.coloured {
				t.Errorf("a step's state: %q", show)
			}

			again := server(t, "", exchange{"GET /api/v1/incidents/inc-7", "", 200, settling})
			plain := backout(t, map[string]string{"TERM": "xterm"}, "incident", "show", "inc-7", "--url="+again)
			if plain.stdout != escape.ReplaceAllString(show, "") {
				t.Errorf("a pipe gets %q", plain.stdout)
			}
		})
	}
}

func TestTheLongestOfEverythingFitsTheTerminal(t *testing.T) {
	var list []view.IncidentView
	for _, name := range []string{"x", strings.Repeat("x", 200), strings.Repeat("漢字", 100), strings.Repeat("e\u0301", 5000), "\x1b[2J\u202eabc\n\n"} {
		list = append(list, view.IncidentView{
			ID: "inc-123456", Service: name, State: remediation.Waiting, Reason: remediation.HoldUnknownTrigger, Drill: true,
			Triggers: []view.TriggerView{{Trigger: name}}, Steps: []view.StepView{{ID: name, State: remediation.StepNoChange, Risk: "reversible"}},
		})
	}
	text := terminal.Incidents(list, terminal.Screen{})
	for _, line := range strings.Split(text, "\n") {
		if terminal.Width(line) > terminal.Columns {
			t.Errorf("%d columns: %s", terminal.Width(line), line)
		}
	}
	for _, inc := range list {
		text += terminal.Incident(inc, time.Time{}, terminal.Screen{})
	}
	for _, line := range strings.Split(text, "\n") {
		if terminal.Width(line) > terminal.Columns && len(strings.Fields(line)) > 2 && !strings.HasPrefix(line, "    backout ") { // a command stays whole
			t.Errorf("%d columns: %.300s", terminal.Width(line), line)
		}
	}
	e := terminal.Entry(audit.Entry{
		Seq: 1234567, Kind: audit.KindHeld, Actor: strings.Repeat("y", 300), Service: strings.Repeat("x", 300), Incident: "inc-1",
		Detail: map[string]any{"why": strings.Repeat("w ", 4000)},
	}, terminal.Screen{})
	for _, line := range strings.Split(e, "\n") {
		if terminal.Width(line) > terminal.Columns {
			t.Errorf("%d columns: %s", terminal.Width(line), line)
		}
	}
}

func TestAPipeGetsEveryCellWhole(t *testing.T) {
	long := strings.Repeat("long-", 40)
	list := []view.IncidentView{{ID: "inc-1", Service: long, State: remediation.Waiting, Triggers: []view.TriggerView{{Trigger: long}}}}
	if text := terminal.Incidents(list, terminal.Screen{Whole: true}); strings.Count(text, long) != 2 {
		t.Errorf("%s", text)
	}
	if text := terminal.Entry(audit.Entry{Service: long, Detail: map[string]any{"why": strings.Repeat("word ", 200)}}, terminal.Screen{Whole: true}); !strings.Contains(text, long) || strings.Count(text, "word") != 200 {
		t.Errorf("%s", text)
	}
}

func TestJSONForATerminalMeansTheSameAndDrivesNothing(t *testing.T) {
	evil := "a\u009b2J\u202e\u200b\U000e0041\x7fé漢"
	url := server(t, "", exchange{"GET /api/v1/incidents/inc-7", "", 200, strings.ReplaceAll(settling, "error_rate", evil)})
	r := backout(t, nil, "incident", "show", "inc-7", "--output=json", "--url="+url)
	if strings.ContainsAny(r.stdout, "\u009b\u202e\u200b\U000e0041\x7f") || !strings.Contains(r.stdout, "é漢") {
		t.Errorf("%q", r.stdout)
	}
	var inc view.IncidentView
	if err := json.Unmarshal([]byte(r.stdout), &inc); err != nil || inc.Triggers[0].Trigger != evil {
		t.Errorf("%+v, %v", inc.Triggers, err)
	}

	entry := audit.Entry{Seq: 1, Time: time.Unix(0, 0), Kind: audit.KindFrozen, Detail: map[string]any{"reason": evil}}
	line, err := entry.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	page := `{"entries":[` + string(line) + `]}`
	ask := func() string {
		return server(t, "", exchange{"GET /api/v1/audit/head", "", 200, `{"seq":1,"hash":"bb"}`},
			exchange{"GET /api/v1/audit?after=0&limit=500", "", 200, page}, exchange{"GET /api/v1/audit?after=1&limit=500", "", 200, `{"entries":[]}`})
	}
	if got := onTerminal(t, nil, "audit", "tail", "--output=json", "--url="+ask()); strings.Contains(got, "\u009b") || !strings.Contains(got, `\u009b`) {
		t.Errorf("on a terminal: %q", got)
	}
	// A program must get the bytes that were hashed.
	if got := backout(t, nil, "audit", "tail", "--output=json", "--url="+ask()).stdout; got != string(line)+"\n" {
		t.Errorf("in a pipe: %q", got)
	}
}

func TestLongWorkTellsHowFarItIsAndLeavesNothingBehind(t *testing.T) {
	var stderr tty
	p := terminal.StartProgress(&stderr, 5*time.Millisecond, true)
	p.Say("entry %d \x1b[2J", 4711)
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(stderr.String(), "entry 4711"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing was told: %q", stderr.String())
		}
	}
	p.Done()
	if got := stderr.String(); strings.Contains(got, "\x1b") || strings.Contains(got, "\n") || !strings.HasSuffix(got, " \r") {
		t.Errorf("told %q", got)
	}

	// Where nobody looks, or the work is short, nothing is told.
	for _, w := range []interface {
		Write([]byte) (int, error)
		String() string
	}{&bytes.Buffer{}, &tty{}} {
		quiet := newCommands(nil, &bytes.Buffer{}, w).progress()
		quiet.Say("entry 1")
		quiet.Done()
		if w.String() != "" {
			t.Errorf("%T was told %q", w, w.String())
		}
	}
}

func TestEveryAnswerCanBeJSON(t *testing.T) {
	c := newCommands(nil, &bytes.Buffer{}, &bytes.Buffer{})
	without := []string{"serve", "rules generate", "schema", "completion", "help"}
	var walk func([]*kingpin.CmdModel)
	walk = func(all []*kingpin.CmdModel) {
		for _, cmd := range all {
			if len(cmd.Commands) > 0 {
				walk(cmd.Commands)
				continue
			}
			has := slices.ContainsFunc(cmd.Flags, func(f *kingpin.FlagModel) bool { return f.Name == "output" && cmd.FullCommand != "rules generate" })
			if has == slices.Contains(without, cmd.FullCommand) {
				t.Errorf("%s: --output is there: %v", cmd.FullCommand, has)
			}
		}
	}
	walk(c.app.Model().Commands)
}

func TestAFollowedTailOutlivesItsServer(t *testing.T) {
	entry := func(seq int) string {
		return fmt.Sprintf(`{"entries":[{"seq":%d,"time":"2026-01-02T15:04:05.000000Z","kind":"frozen","actor":"oncall","service":"","incident":"","step":"","action":"","detail":{},"prev":"aa","hash":"bb"}]}`, seq)
	}
	away := exchange{"GET /api/v1/audit?after=8&limit=500", "", 503, `{"error":"starting"}`}
	url := server(t, "", exchange{"GET /api/v1/audit/head", "", 200, `{"seq":8,"hash":"bb"}`},
		exchange{"GET /api/v1/audit?after=7&limit=500", "", 200, entry(8)},
		exchange{"GET /api/v1/audit?after=8&limit=500", "", 200, `{"entries":[]}`},
		away, away, away,
		exchange{"GET /api/v1/audit?after=8&limit=500", "", 200, entry(9)})
	r := backoutUntil(t, "     9  ", nil, "audit", "tail", "--lines=1", "--follow", "--url="+url)
	if r.status != 0 || strings.Count(r.stderr, "retrying") != 1 || strings.Count(r.stdout, "frozen") != 2 {
		t.Errorf("%+v", r)
	}
	// What is no absence ends it.
	url = server(t, "", exchange{"GET /api/v1/audit/head", "", 200, `{"seq":0,"hash":"bb"}`},
		exchange{"GET /api/v1/audit?after=0&limit=500", "", 200, `{"entries":[]}`},
		exchange{"GET /api/v1/audit?after=0&limit=500", "", 401, `{"error":"a known token is required"}`})
	r = backout(t, nil, "audit", "tail", "--follow", "--url="+url)
	if r.status != 2 || !strings.Contains(r.stderr, "a known token is required\ntry: --token-file") {
		t.Errorf("%+v", r)
	}
}
