// Command backout receives Alertmanager notifications and rolls a bad release
// back. This package holds only flags, wiring and the text on the terminal, with
// one file per group of commands.
//
// Rules for every command:
//
//   - Standard output has the answer, standard error has what went wrong. With
//     --output=json the answer is JSON and nothing else.
//   - Text for people fits 80 columns, and its times are UTC.
//   - The exit status is one of the three constants below.
//   - Text from outside is never written to a terminal unescaped.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/cmd/backout/client"
	"github.com/locotoki/backout/cmd/backout/completion"
	"github.com/locotoki/backout/cmd/backout/manpage"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/remediation/audit"
)

// The exit statuses.
const (
	statusFine     = 0
	statusNegative = 1 // a negative answer: drift, a refusal, a broken chain
	statusWrong    = 2 // wrong usage or configuration, or no answer to be had
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks to stop, and gives the next one back its usual effect.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is the program without its process: it writes to stdout and stderr, and
// returns the exit status.
func run(ctx context.Context, args []string, environ []string, stdout, stderr io.Writer) int {
	return newCommands(environ, stdout, stderr).exec(ctx, args)
}

// exec parses args and runs the selected command.
func (c *commands) exec(ctx context.Context, args []string) int {
	var name string
	var err error
	if len(args) > 0 && args[0] == completion.Flag {
		err = c.complete(ctx, args[1:])
	} else if len(args) == 1 && args[0] == manpage.Flag {
		err = c.print(c.manPage())
	} else if name, err = c.parse(args); err == nil {
		err = c.run[name](ctx)
	}
	if err == nil {
		return statusFine
	}
	status, words := explain(err)
	if words != "" {
		if _, werr := fmt.Fprint(c.stderr, words); werr != nil {
			return statusWrong
		}
	}
	return status
}

// commands is the command line: the parser, and what each command runs.
type commands struct {
	app     *kingpin.Application
	run     map[string]func(context.Context) error
	clauses map[string]*kingpin.CmdClause // of run
	words   map[string][]string           // those of an argument with a fixed set, by command and name
	// answers are the types of the JSON that each command prints.
	answers map[string][]reflect.Type
	environ []string // NAME=VALUE, as of os.Environ
	stdout  io.Writer
	stderr  io.Writer
	now     func() time.Time
	// every is how often --follow looks again.
	every time.Duration
}

func newCommands(environ []string, stdout, stderr io.Writer) *commands {
	c := &commands{
		app: kingpin.New("backout", "Rolls a bad release back when its alerts fire: flag off, then the "+
			"previous image, then the previous schema. See `backout help COMMAND` for one command."),
		run:     map[string]func(context.Context) error{},
		clauses: map[string]*kingpin.CmdClause{}, words: map[string][]string{},
		answers: map[string][]reflect.Type{},
		environ: environ, stdout: stdout, stderr: stderr, now: time.Now, every: time.Second,
	}
	c.app.UsageWriter(stdout)
	c.app.ErrorWriter(stderr)
	c.app.Terminate(func(status int) { panic(parserEnds(status)) })
	c.app.HelpFlag.Short('h').Help("Show help for backout or one command.")
	c.addInit()
	c.addServe()
	c.addCheck()
	c.addBacktest()
	c.addRules()
	c.addTest()
	c.addStatus()
	c.addIncident()
	c.addApprove()
	c.addFreeze()
	c.addSignal()
	c.addRollout()
	c.addPreflight()
	c.addRehearse()
	c.addAudit()
	c.addStorage()
	c.addVerify()
	c.addSchema()
	c.addCompletion()
	c.addVersion()
	return c
}

// parserEnds is the panic in place of the parser's exit, as after --help: only main
// exits. parse recovers it.
type parserEnds int

// parse returns the command that args select, with its flags set. If the parser has
// already answered, the error is errHelped or errAnsweredWrong.
func (c *commands) parse(args []string) (name string, err error) {
	defer func() {
		switch end := recover().(type) {
		case nil:
		case parserEnds:
			name, err = "", errHelped
			if end != 0 {
				err = errAnsweredWrong
			}
		default:
			panic(end)
		}
	}()
	// Not a flag of the parser: each command would have it, and verify's --version
	// is another.
	if len(args) > 0 && args[0] == "--version" {
		args = append([]string{"version"}, args[1:]...)
	}
	pc, err := c.app.ParseContext(args)
	help := "backout --help"
	if pc != nil && pc.SelectedCommand != nil {
		help = "backout help " + pc.SelectedCommand.FullCommand()
	}
	if err == nil && c.lacksCommand(pc) {
		err = errors.New("no command given")
	}
	if err == nil {
		name, err = c.app.Parse(args)
	}
	if err != nil {
		return "", wrong(c.meant(pc, err)+help, "%w", err)
	}
	return name, nil
}

// misspelt matches the parser's errors about a word that it does not know.
var misspelt = regexp.MustCompile(`^(?:expected command but got "(.+)"|unknown long flag '(--.+)')$`)

// meant begins the hint for a misspelt command or flag, "" for any other error.
func (c *commands) meant(pc *kingpin.ParseContext, err error) string {
	m := misspelt.FindStringSubmatch(err.Error())
	if m == nil {
		return ""
	}
	known, model := c.app.Model().Commands, c.app.Model().FlagGroupModel
	if pc != nil && pc.SelectedCommand != nil {
		selected := pc.SelectedCommand.Model()
		known, model = selected.Commands, selected.FlagGroupModel
	}
	var names []string
	for _, command := range known {
		names = append(names, command.Name)
	}
	if m[2] != "" {
		names = nil
		for _, f := range model.Flags {
			names = append(names, "--"+f.Name)
		}
	}
	if name := alerts.Nearest(m[1]+m[2], names); name != "" {
		return "did you mean " + name + "? or "
	}
	return ""
}

// lacksCommand reports whether args end before a command that can run, and do not
// ask for help.
func (c *commands) lacksCommand(pc *kingpin.ParseContext) bool {
	for _, e := range pc.Elements {
		if f, ok := e.Clause.(*kingpin.FlagClause); ok && (f.Model().Hidden || f == c.app.HelpFlag) {
			return false
		}
	}
	return pc.SelectedCommand == nil || len(pc.SelectedCommand.Model().Commands) > 0
}

// env returns the value of an environment variable, "" if it is not set.
func (c *commands) env(name string) string {
	value := ""
	for _, e := range c.environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v // the last one wins
		}
	}
	return value
}

// add registers the function of a command.
func (c *commands) add(clause *kingpin.CmdClause, fn func(context.Context) error) {
	c.run[clause.FullCommand()], c.clauses[clause.FullCommand()] = fn, clause
}

// programVersion is the answer of version.
type programVersion struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	Branch    string `json:"branch"`
	BuildDate string `json:"build_date"`
	GoVersion string `json:"go_version"`
}

func (c *commands) addVersion() {
	clause := c.app.Command("version", "Print the version, as backout --version does.")
	asJSON := c.outputFlag(clause, reflect.TypeFor[programVersion]())
	c.add(clause, func(context.Context) error {
		if *asJSON == outputJSON {
			return c.printJSON(programVersion{version.Version, version.GetRevision(), version.Branch, version.BuildDate, version.GoVersion})
		}
		return c.print(version.Print("backout") + "\n")
	})
}

// manPage is the manual page of today, or of the day of the commit that a release is
// made of.
func (c *commands) manPage() string {
	made := c.now()
	if seconds, err := strconv.ParseInt(c.env("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		made = time.Unix(seconds, 0)
	}
	return manpage.Page(c.app.Model(), made)
}

// print writes an answer.
func (c *commands) print(s string) error {
	_, err := io.WriteString(c.stdout, s)
	return err
}

// answer prints a command's answer as JSON or as text. One that is not ok is negative.
func (c *commands) answer(output string, v any, text string, ok bool) error {
	var err error
	if output == outputJSON {
		err = c.printJSON(v)
	} else {
		err = c.print(text)
	}
	if err == nil && !ok {
		err = errAnswered
	}
	return err
}

// failure is an error with its exit status and what to try.
type failure struct {
	error
	status int
	try    string
}

func (f *failure) Unwrap() error { return f.error }

// wrong is a mistake on the command line or in a file it names, with what to try.
func wrong(try string, format string, args ...any) error {
	return &failure{error: fmt.Errorf(format, args...), status: statusWrong, try: try}
}

// negative is an answer that is no.
func negative(try string, format string, args ...any) error {
	return &failure{error: fmt.Errorf(format, args...), status: statusNegative, try: try}
}

// continues is the error of a command that was interrupted while the server worked for it,
// or, if that had not answered yet, may have begun to. show is the command that shows it.
func continues(err error, answered bool, show, service string) error {
	if !errors.Is(err, context.Canceled) {
		return err
	}
	if service != "" {
		show += " --service=" + terminal.Clean(service)
	}
	if !answered {
		return wrong(show, "stopped waiting; the server had not answered, and may have begun")
	}
	return wrong(show, "stopped waiting; the server continues")
}

// errAnswered ends a command whose printed answer is negative.
var errAnswered = errors.New("answered")

// errHelped ends a run that the parser answered: help, or the version.
var errHelped = errors.New("helped")

// errAnsweredWrong is the same for an answer about a usage error.
var errAnsweredWrong = errors.New("answered")

// explain returns the exit status of an error, and its text.
func explain(err error) (status int, words string) {
	switch {
	case errors.Is(err, errHelped):
		return statusFine, ""
	case errors.Is(err, errAnswered):
		return statusNegative, ""
	case errors.Is(err, errAnsweredWrong):
		return statusWrong, ""
	case errors.Is(err, client.ErrMayHaveChanged):
		return statusWrong, "backout: interrupted before the answer came; " + client.ErrMayHaveChanged.Error() + "\ntry: backout audit tail\n"
	case errors.Is(err, context.Canceled):
		return statusWrong, "backout: interrupted\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "backout: %s\n", terminal.List(err.Error()))
	var f *failure
	var breaks *audit.BrokenChainError
	var refused *client.Error
	switch {
	case errors.As(err, &breaks):
		f = &failure{status: statusNegative, try: "backout audit verify"}
	case errors.As(err, &f):
	case errors.As(err, &refused):
		f = &failure{status: statusWrong, try: refused.Try}
		if refused.Negative {
			f.status = statusNegative
		}
	default:
		return statusWrong, b.String()
	}
	if f.try != "" {
		fmt.Fprintf(&b, "try: %s\n", f.try)
	}
	return f.status, b.String()
}
