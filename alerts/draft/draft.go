// Package draft writes the first playbook of a service, from what its compose project
// and Prometheus show. backout init calls it.
//
// Invariants:
//   - Every value is known, guessed or missing. A guess is marked "# guessed" with its
//     reason, a missing value "# fill in"; backout check names each missing one.
//   - Nothing is written to any system, and no variable's value is shown but a flag's.
//   - A Prometheus that does not answer costs guesses, never the playbook.
package draft

import (
	"bytes"
	"context"
	_ "embed" // the playbook's template
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

// releaseTag is the tag of a release, as git names it.
var releaseTag = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+(-(alpha|beta|rc)[.0-9]*)?$`)

// schemaURL is where the JSON Schema of a version's playbook is published: at its tag, or
// on main if it has none.
func schemaURL(version string) string {
	at := "main"
	if releaseTag.MatchString(version) {
		at = version
	}
	return "https://raw.githubusercontent.com/locotoki/backout/" + at + "/docs/reference/playbook.schema.json"
}

// Service is what a compose project's files say of one service.
type Service struct {
	// ProjectDir is the absolute path of the project's folder.
	ProjectDir string
	Name       string
	// Tag is the tag of the image that the files name now, TagVariable the variable that
	// sets it. Each is "" if there is none.
	Tag, TagVariable string
	// Variables are what the service gets, Others what only the compose files get. They
	// may hold secrets.
	Variables, Others map[string]string
	Ports             []Port
	// Healthcheck is the command of the service's health check.
	Healthcheck []string
	// HealthcheckTakes is its interval, start_period and timeout together: how long after a
	// start its first answer comes at the latest. 0 if there is none.
	HealthcheckTakes time.Duration
	// Migrations is the project's folder, where Flyway's scripts are looked for.
	Migrations fs.FS
}

// Port is a port of the service on this machine.
type Port struct {
	// Host is the address that it listens on, "" for all.
	Host      string
	Published string
	// Last is the end of a range of which each container gets one, Published its begin; "" for
	// a single port.
	Last   string
	Target uint32
}

// Prometheus answers instant queries and lists its targets.
type Prometheus interface {
	// Vector returns all samples of an expression, at the server's present time.
	Vector(ctx context.Context, expr string) (model.Vector, error)
	// ScrapeIntervals are the longest interval of each job's targets. What answers queries
	// in Prometheus's place, such as Thanos, has none.
	ScrapeIntervals(ctx context.Context) (map[string]time.Duration, error)
}

// Options says what a playbook is drafted from.
type Options struct {
	Service Service
	// Prometheus is nil if none was named; Address names it in the file.
	Prometheus Prometheus
	Address    string
	// Job, Version and Previous are what the caller knows; "" is found out or guessed.
	Job, Version, Previous string
	Now                    time.Time
	// Program is the version of backout that writes.
	Program string
}

// Write returns the playbook as YAML. noAnswer is why Prometheus did not answer, nil if it
// did or was not asked; the playbook then has guesses. It is a *NoJobError if Prometheus
// answers and has no job of the service; the playbook then lacks what needs the job. err is the context's: anything else
// that fails becomes a remark in the playbook.
func Write(ctx context.Context, o Options) (text []byte, noAnswer, err error) {
	d := &document{Options: o, Schema: schemaURL(o.Program)}
	d.release()
	d.probe()
	d.flags()
	d.migrations()
	if noAnswer, err = d.ask(ctx); err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	err = playbook.Execute(&b, d)
	return b.Bytes(), noAnswer, err
}

//go:embed playbook.tmpl
var playbookText string

var playbook = template.Must(template.New("playbook").Funcs(template.FuncMap{
	"key": func(name string, a answer) string { return name + ":" + a.String() }, "quote": quote, "number": number, "oneLine": oneLine,
	"list": func(names []string) string { return strings.Join(names, ", ") },
	"indent": func(n int, text string) string {
		return strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+strings.Repeat(" ", n))
	},
}).Parse(playbookText))

// document is what the template shows.
type document struct {
	Options
	Schema string

	Version, Previous answer
	Health, Timeout   answer
	Flags             []flag
	Share             bool     // the first flag's value is a share of the traffic
	Switches          []string // variables that are on or off, and not named like a flag
	NotGiven          []string // flags that the service does not get
	Flyway            *flyway

	Asked     string // what Prometheus was asked, or why it was not
	Job       answer
	Jobs      []string
	Own       answer // matchers of the service's series
	Up        string
	Scrape    answer
	Program   string // who exports the metrics
	Alive     answer
	Signals   []signal
	Resources []resource
}

// answer is a value of the playbook with how it is known.
type answer struct {
	value string
	// guessed or missing is why; both are "" for what is known.
	guessed, missing string
}

func known(value string) answer { return answer{value: value} }
func guessed(value, why string, args ...any) answer {
	return answer{value: value, guessed: fmt.Sprintf(why, args...)}
}
func missing(why string, args ...any) answer { return answer{missing: fmt.Sprintf(why, args...)} }

// Missing reports whether the value must be filled in.
func (a answer) Missing() bool { return a.missing != "" }

// String is what follows the key and its colon.
func (a answer) String() string {
	switch {
	case a.missing != "":
		return " # fill in: " + oneLine(a.missing)
	case a.guessed != "":
		return " " + quote(a.value) + " # guessed: " + oneLine(a.guessed)
	}
	return " " + quote(a.value)
}

// oneLine keeps a comment a comment, whatever a file or a server put into it.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// quote writes a text as YAML in block style: plain where that reads back as the same
// text, and not as another type in YAML 1.1.
func quote(text string) string {
	var plain struct {
		X yaml.Node `yaml:"x"`
	}
	if err := yaml.Unmarshal([]byte("x: "+text), &plain); err == nil && plain.X.Value == text && plain.X.ShortTag() == "!!str" && plain.X.Style == 0 && plain.X.LineComment == "" && offOf[strings.ToLower(text)] == "" {
		return text
	}
	if !strings.ContainsAny(text, "'\n") {
		return "'" + text + "'"
	}
	return strconv.QuoteToASCII(text)
}
