// Package completion offers what the last word of a command line may become. The shells'
// scripts ask `backout --completion-bash WORD...` and offer the lines that it prints.
// The command calls it.
//
// Its invariants:
//
//   - An offer is one word to every shell: a name from outside never becomes a part of a
//     command.
//   - A server, a database and playbooks are asked only for values that they alone know.
package completion

import (
	"context"
	_ "embed" // the shells' scripts
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/cmd/backout/client"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

var (
	//go:embed backout.bash
	bashScript string
	//go:embed _backout
	zshScript string
	//go:embed backout.fish
	fishScript string
)

// Flag is what the scripts ask with; the parser's own scripts use it too.
const Flag = "--completion-bash"

// Scripts are the scripts by the name of their shell.
func Scripts() map[string]string {
	return map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}
}

// Commands is the command line that is completed.
type Commands struct {
	App *kingpin.ApplicationModel
	// Options returns the fixed values of a command's flag, if it has such.
	Options func(command, flag string) []string
	// Words returns the fixed values of a command's argument, nil if it has none.
	Words func(command, argument string) []string
	// Known returns the values of that name that a server, a database or the playbooks
	// on the line know. It is called for the names in asked only.
	Known func(l Line, name string) []string
}

// asked are the flags and arguments whose values are looked up.
var asked = []string{"incident", "step", "service", "stage", "release", "plan", "signal", "item"}

// Offers returns what the last of words may become, sorted.
func (c *Commands) Offers(words []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	l := c.readLine(joinFlags(words))
	current := l.current
	var offers []string
	switch name, value, isValue := strings.Cut(current, "="); {
	case strings.HasPrefix(current, "--") && isValue && !l.argsOnly:
		offers, current = c.values(l, name[2:], l.flags[name[2:]]), value
	case l.pending != "":
		offers = c.values(l, l.pending, l.flags[l.pending])
	case strings.HasPrefix(current, "-") && !l.argsOnly:
		for _, f := range l.flags {
			if !f.Hidden {
				offers = append(offers, "--"+f.Name)
			}
		}
	case len(l.commands) > 0 && len(l.Args) == 0:
		for _, sub := range l.commands {
			if !sub.Hidden {
				offers = append(offers, sub.Name)
			}
		}
	default:
		offers = c.arguments(l)
	}
	offers = slices.DeleteFunc(offers, func(offer string) bool {
		return !plainWord.MatchString(offer) || !strings.HasPrefix(offer, current)
	})
	slices.Sort(offers)
	return slices.Compact(offers)
}

// plainWord is what every shell takes as one word.
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

// Line is what precedes the word that is completed.
type Line struct {
	Command string            // its full name, "" before one
	Given   map[string]string // the values of flags
	Files   []string          // the values of --playbook.file
	Args    []string

	current  string
	flags    map[string]*kingpin.FlagModel
	commands []*kingpin.CmdModel // those that can follow
	argument []*kingpin.ArgModel
	pending  string // the flag whose value comes next
	argsOnly bool   // after --
}

// HasFlag reports whether the command has a flag.
func (l Line) HasFlag(name string) bool { return l.flags[name] != nil }

// readLine reads words as the parser does, but of a line that is not complete.
func (c *Commands) readLine(words []string) Line {
	l := Line{current: words[len(words)-1], flags: map[string]*kingpin.FlagModel{}, commands: c.App.Commands, Given: map[string]string{}}
	add := func(g *kingpin.FlagGroupModel) {
		for _, f := range g.Flags {
			l.flags[f.Name] = f
		}
	}
	add(c.App.FlagGroupModel)
	give := func(name, value string) {
		if l.Given[name] = value; name == "playbook.file" && value != "" {
			l.Files = append(l.Files, value)
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
			if i < 0 || len(l.Args) > 0 {
				l.Args = append(l.Args, w)
				continue
			}
			sub := l.commands[i]
			l.Command, l.commands, l.argument = sub.FullCommand, sub.Commands, sub.Args
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
func (c *Commands) values(l Line, name string, f *kingpin.FlagModel) []string {
	if f == nil {
		return nil
	}
	if options := c.Options(l.Command, name); len(options) > 0 {
		return options
	}
	return c.known(l, name)
}

// arguments are the values of the argument that comes next.
func (c *Commands) arguments(l Line) []string {
	if len(l.argument) == 0 {
		return nil
	}
	at := min(len(l.Args), len(l.argument)-1)
	if many, ok := l.argument[at].Value.(interface{ IsCumulative() bool }); at < len(l.Args) && (!ok || !many.IsCumulative()) {
		return nil
	}
	name := l.argument[at].Name
	if words := c.Words(l.Command, name); words != nil {
		return words
	}
	switch name {
	case "id":
		name = "incident"
	case "name":
		name = "signal"
	}
	return c.known(l, name)
}

// known are the values that are not on the command line.
func (c *Commands) known(l Line, name string) (out []string) {
	if name == "kind" {
		for _, k := range audit.Kinds() {
			out = append(out, string(k))
		}
		return out
	}
	if !slices.Contains(asked, name) {
		return nil
	}
	return c.Known(l, name)
}

// InPlaybook are the values of that name in a playbook.
func InPlaybook(pb *alerts.Playbook, name string) (out []string) {
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
	return out
}

// Source is a server or a database.
type Source interface {
	Incidents(ctx context.Context, f remediation.IncidentFilter) ([]view.IncidentView, error)
	Incident(ctx context.Context, id string) (view.IncidentView, error)
	Rollouts(ctx context.Context) ([]view.RolloutView, error)
	Rehearsals(ctx context.Context, service string) ([]remediation.Rehearsal, error)
}

// Ask returns the values of that name that a server or a database knows.
func (l Line) Ask(ctx context.Context, src Source, name string) (out []string, err error) {
	service := l.Given["service"]
	cl, server := src.(*client.Client)
	switch {
	case name == "incident":
		changes := !slices.Contains([]string{"incident show", "incident report", "incident restore", "audit list"}, l.Command)
		list, err := src.Incidents(ctx, remediation.IncidentFilter{Open: changes, Limit: 100, Newest: true})
		for _, inc := range list {
			out = append(out, inc.ID)
		}
		return out, err
	case name == "step" && len(l.Args) > 0:
		inc, err := src.Incident(ctx, l.Args[0])
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
