package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/cmd/backout/flags"
	"github.com/locotoki/backout/cmd/backout/terminal"
)

// The values of --output.
const (
	outputText = "text"
	outputJSON = "json"
)

// outputFlag adds --output. The types are those of the JSON that the command prints.
func (c *commands) outputFlag(clause *kingpin.CmdClause, answers ...reflect.Type) *string {
	c.answers[clause.FullCommand()] = answers
	return flags.Choice(clause, "output", "How to print the answer: text or json.", outputText, outputText, outputJSON)
}

// printJSON writes v as indented JSON, with < > & as they are.
func (c *commands) printJSON(v any) error {
	return c.encode(v, "  ")
}

// printJSONLine writes v as JSON on one line, for answers of several lines.
func (c *commands) printJSONLine(v any) error {
	return c.encode(v, "")
}

func (c *commands) encode(v any, indent string) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return c.print(terminal.Harmless(b.String()))
}
