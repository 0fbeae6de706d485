package main

import (
	"context"
	"strings"

	"github.com/alecthomas/kingpin/v2"
)

// completionScripts are the parser's own, by shell.
func completionScripts() map[string]string {
	return map[string]string{"bash": kingpin.BashCompletionTemplate, "zsh": kingpin.ZshCompletionTemplate}
}

func (c *commands) addCompletion() {
	clause := c.app.Command("completion", "Print a script that completes commands and flags in your shell. bash: source <(backout completion bash); "+
		"zsh, after compinit: source <(backout completion zsh).")
	shell := clause.Arg("shell", "bash or zsh.").Required().HintOptions("bash", "zsh").Enum("bash", "zsh")
	c.add(clause, func(context.Context) error {
		return c.print(strings.ReplaceAll(completionScripts()[*shell], "{{.App.Name}}", c.app.Name))
	})
}
