package main

import (
	"context"
	_ "embed" // the shells' scripts
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/cmd/backout/client"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// The scripts ask `backout --completion-bash WORD...`, whose last word is the one that is
// completed, and offer the lines that it prints.
var (
	//go:embed completion/backout.bash
	bashScript string
	//go:embed completion/_backout
	zshScript string
	//go:embed completion/backout.fish
	fishScript string
)

// completionFlag is what the scripts ask with; the parser's own scripts use it too.
const completionFlag = "--completion-bash"

// completionTimeout bounds what a server or a database is asked while a person waits
// for the shell.
const completionTimeout = time.Second

func (c *commands) addCompletion() {
	clause := c.app.Command("completion", "Print a script with which your shell completes commands, flags and values, such as open incidents. bash: source <(backout completion bash); "+
		"zsh, after compinit: source <(backout completion zsh); fish: backout completion fish | source.")
	scripts := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}
	shell := c.enumArg(clause, "shell", "bash, zsh or fish.", "bash", "zsh", "fish")
	c.add(clause, func(context.Context) error { return c.print(scripts[*shell]) })
}

// enumArg adds a required argument with a fixed set of words.
func (c *commands) enumArg(clause *kingpin.CmdClause, name, help string, words ...string) *string {
	c.words[clause.FullCommand()+" "+name] = words
	return clause.Arg(name, help).Required().Enum(words...)
}

// complete prints what the last word may become.
func (c *commands) complete(ctx context.Context, words []string) error {
	if len(words) == 0 {
		words = []string{""}
	}
	l := c.readLine(joinFlags(words))
	current := l.current
	var offers []string
	switch name, value, isValue := strings.Cut(current, "="); {
	case strings.HasPrefix(current, "--") && isValue && !l.argsOnly:
		offers, current = c.values(ctx, l, name[2:], l.flags[name[2:]]), value
	case l.pending != "":
		offers = c.values(ctx, l, l.pending, l.flags[l.pending])
	case strings.HasPrefix(current, "-") && !l.argsOnly:
		for _, f := range l.flags {
			if !f.Hidden {
				offers = append(offers, "--"+f.Name)
			}
		}
	case len(l.commands) > 0 && len(l.args) == 0:
		for _, sub := range l.commands {
			if !sub.Hidden {
				offers = append(offers, sub.Name)
			}
		}
	default:
		offers = c.arguments(ctx, l)
	}
	slices.Sort(offers)
	for _, offer := range slices.Compact(offers) {
		// What a shell would not take as one word is not offered: a name from outside must
		// not become a part of a command.
		if plainWord.MatchString(offer) && strings.HasPrefix(offer, current) {
			if err := c.print(offer + "\n"); err != nil {
				return err
			}
		}
	}
	return nil
}

var plainWord = regexp.MustCompile(`^[\pL\pN_.:@/+-]+$`)

// joinFlags undoes what bash does: it hands --flag=value over as three words.
func joinFlags(words []string) []string {
	var out []string
	for i := 0; i < len(words); i++ {
		if words[i] == "=" && len(out) > 0 && strings.HasPrefix(out[len(out)-1], "--") {
			out[len(out)-1] += "="
			if i++; i < len(words) {
				out[len(out)-1] += words[i]
			}
			continue
		}
		out = append(out, words[i])
	}
	return out
}

// line is what precedes the word that is completed.
type line struct {
	command  string // its full name, "" before one
	current  string
	flags    map[string]*kingpin.FlagModel
	commands []*kingpin.CmdModel // those that can follow
	argument []*kingpin.ArgModel
	given    map[string]string // the values of flags
	files    []string          // the values of --playbook.file
	args     []string
	pending  string // the flag whose value comes next
	argsOnly bool   // after --
}

// readLine reads words as the parser does, but of a line that is not complete.
func (c *commands) readLine(words []string) line {
	app := c.app.Model()
	l := line{current: words[len(words)-1], flags: map[string]*kingpin.FlagModel{}, commands: app.Commands, given: map[string]string{}}
	add := func(g *kingpin.FlagGroupModel) {
		for _, f := range g.Flags {
			l.flags[f.Name] = f
		}
	}
	add(app.FlagGroupModel)
	give := func(name, value string) {
		if l.given[name] = value; name == "playbook.file" && value != "" {
			l.files = append(l.files, value)
		}
	}
	for _, w := range words[:len(words)-1] {
		name, value, has := strings.Cut(strings.TrimPrefix(w, "--"), "=")
		switch f := l.flags[name]; {
		case l.pending != "":
			give(l.pending, w)
			l.pending = ""
		case w == "--":
			l.argsOnly = true
		case strings.HasPrefix(w, "-") && !l.argsOnly:
			if f != nil && !f.IsBoolFlag() && strings.HasPrefix(w, "--") {
				if give(name, value); !has {
					l.pending = name
				}
			}
		default:
			i := slices.IndexFunc(l.commands, func(m *kingpin.CmdModel) bool { return m.Name == w })
			if i < 0 || len(l.args) > 0 {
				l.args = append(l.args, w)
				continue
			}
			sub := l.commands[i]
			l.command, l.commands, l.argument = sub.FullCommand, sub.Commands, sub.Args
			add(sub.FlagGroupModel)
			for _, preset := range sub.Commands { // backout preflight is backout preflight run
				if preset.Default {
					add(preset.FlagGroupModel)
				}
			}
		}
	}
	return l
}

// values are those that a flag may have.
func (c *commands) values(ctx context.Context, l line, name string, f *kingpin.FlagModel) []string {
	if f == nil {
		return nil
	}
	command := l.command
	if c.clauses[command] == nil {
		command += " run"
	}
	if clause := c.clauses[command]; clause != nil {
		if options, known, _ := clause.FlagCompletion(name, ""); known && len(options) > 0 {
			return options
		}
	}
	return c.known(ctx, l, name)
}

// arguments are the values of the argument that comes next.
func (c *commands) arguments(ctx context.Context, l line) []string {
	if len(l.argument) == 0 {
		return nil
	}
	at := min(len(l.args), len(l.argument)-1)
	if many, ok := l.argument[at].Value.(interface{ IsCumulative() bool }); at < len(l.args) && (!ok || !many.IsCumulative()) {
		return nil
	}
	name := l.argument[at].Name
	if words := c.words[l.command+" "+name]; words != nil {
		return words
	}
	switch name {
	case "id":
		name = "incident"
	case "name":
		name = "signal"
	}
	return c.known(ctx, l, name)
}

// known are the values that a server, a database or the playbooks on the line know.
// Nothing is said if none answers: a shell has no place for it.
func (c *commands) known(ctx context.Context, l line, name string) (out []string) {
	if name == "kind" {
		for _, k := range audit.Kinds() {
			out = append(out, string(k))
		}
		return out
	}
	if !slices.Contains([]string{"incident", "step", "service", "stage", "release", "plan", "signal", "item"}, name) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	if len(l.files) > 0 {
		return l.inPlaybooks(name)
	}
	if l.flags["token-file"] == nil { // its --url is of something else
		return nil
	}
	from := sourceFlags{serverFlags: serverFlags{url: ptr(l.given["url"]), tokenFile: ptr(l.given["token-file"]), insecure: ptr(false), env: c.env}, dsn: ptr(l.given["storage.dsn"]), now: c.now}
	_ = from.with(ctx, func(src source) (err error) {
		out, err = l.ask(ctx, src, name)
		return err
	})
	return out
}

func ptr[T any](v T) *T { return &v }

// inPlaybooks are the values in the playbooks on the line.
func (l line) inPlaybooks(name string) (out []string) {
	kinds, err := actionKinds(config.Default(), nil, promslog.NewNopLogger())
	if err != nil {
		return nil
	}
	defer func() { _ = kinds.Close() }()
	for _, file := range l.files {
		pb, err := alerts.Load(file, playbookKinds(kinds.list))
		if err != nil {
			continue
		}
		switch name {
		case "service":
			out = append(out, pb.Service)
		case "release":
			out = append(out, pb.Release.Version)
		case "stage":
			out = append(out, remediation.StageNames(pb)...)
		case "plan":
			for _, p := range pb.Plans {
				out = append(out, p.Name)
			}
		case "signal":
			for _, t := range pb.Triggers {
				out = append(out, t.Signal)
			}
		}
	}
	return out
}

// ask returns the values that a server or a database knows.
func (l line) ask(ctx context.Context, src source, name string) (out []string, err error) {
	service := l.given["service"]
	cl, server := src.(*client.Client)
	switch {
	case name == "incident":
		changes := !slices.Contains([]string{"incident show", "incident report", "incident restore", "audit list"}, l.command)
		list, err := src.Incidents(ctx, remediation.IncidentFilter{Open: changes, Limit: 100, Newest: true})
		for _, inc := range list {
			out = append(out, inc.ID)
		}
		return out, err
	case name == "step" && len(l.args) > 0:
		inc, err := src.Incident(ctx, l.args[0])
		for _, s := range inc.Steps {
			if s.Started == nil {
				out = append(out, s.ID)
			}
		}
		return out, err
	case name == "signal" && server:
		var now view.Status
		err := cl.Ask(ctx, http.MethodGet, "api/v1/status", nil, nil, &now)
		for _, sv := range now.Services {
			for _, s := range sv.Signals {
				if service == "" || service == sv.Service {
					out = append(out, s.Name)
				}
			}
		}
		return out, err
	case name == "item" && server:
		v, err := cl.Preflight(ctx, service)
		for _, it := range v.Items {
			out = append(out, it.ID)
		}
		return out, err
	}
	rollouts, err := src.Rollouts(ctx)
	for _, r := range rollouts {
		switch {
		case name == "service":
			out = append(out, r.Service)
		case service != "" && service != r.Service:
		case name == "release":
			out = append(out, r.Release)
		case name == "stage":
			out = append(out, r.Stages...)
		case name == "plan":
			rehearsals, rerr := src.Rehearsals(ctx, r.Service)
			for _, one := range rehearsals {
				out = append(out, one.Plan)
			}
			err = rerr
		}
	}
	return out, err
}
