package main

import (
	"context"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/promslog"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/cmd/backout/completion"
	"github.com/locotoki/backout/receiver/config"
)

// completionTimeout bounds what a server or a database is asked while a person waits
// for the shell.
const completionTimeout = time.Second

func (c *commands) addCompletion() {
	clause := c.app.Command("completion", "Print a script with which your shell completes commands, flags and values, such as open incidents. bash: source <(backout completion bash); "+
		"zsh, after compinit: source <(backout completion zsh); fish: backout completion fish | source.")
	shell := c.enumArg(clause, "shell", "bash, zsh or fish.", "bash", "zsh", "fish")
	c.add(clause, func(context.Context) error { return c.print(completion.Scripts()[*shell]) })
}

// enumArg adds a required argument with a fixed set of words.
func (c *commands) enumArg(clause *kingpin.CmdClause, name, help string, words ...string) *string {
	c.words[clause.FullCommand()+" "+name] = words
	return clause.Arg(name, help).Required().Enum(words...)
}

// complete prints what the last word may become.
func (c *commands) complete(ctx context.Context, words []string) error {
	line := completion.Commands{
		App: c.app.Model(),
		Options: func(command, flag string) []string {
			if c.clauses[command] == nil {
				command += " run" // backout preflight is backout preflight run
			}
			clause := c.clauses[command]
			if clause == nil {
				return nil
			}
			options, _, _ := clause.FlagCompletion(flag, "")
			return options
		},
		Words: func(command, argument string) []string { return c.words[command+" "+argument] },
		Known: func(l completion.Line, name string) []string { return c.known(ctx, l, name) },
	}
	return c.print(strings.Join(append(line.Offers(words), ""), "\n"))
}

// known are the values that a server, a database or the playbooks on the line know.
// Nothing is said if none answers: a shell has no place for it.
func (c *commands) known(ctx context.Context, l completion.Line, name string) (out []string) {
	if len(l.Files) > 0 {
		return inPlaybooks(l.Files, name)
	}
	if !l.HasFlag("token-file") { // its --url is of something else
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	url, tokenFile, dsn, insecure := l.Given["url"], l.Given["token-file"], l.Given["storage.dsn"], false
	from := sourceFlags{serverFlags: serverFlags{url: &url, tokenFile: &tokenFile, insecure: &insecure, env: c.env}, dsn: &dsn, now: c.now}
	_ = from.with(ctx, func(src source) (err error) {
		out, err = l.Ask(ctx, src, name)
		return err
	})
	return out
}

// inPlaybooks are the values in playbook files; one that cannot be loaded is left out.
func inPlaybooks(files []string, name string) (out []string) {
	kinds, err := actionKinds(config.Default(), nil, promslog.NewNopLogger())
	if err != nil {
		return nil
	}
	defer func() { _ = kinds.Close() }()
	for _, file := range files {
		if pb, err := alerts.Load(file, playbookKinds(kinds.list)); err == nil {
			out = append(out, completion.InPlaybook(pb, name)...)
		}
	}
	return out
}
