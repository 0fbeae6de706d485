package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/locotoki/backout/docs"
)

// byOutputSchema is main for the scripts: what a command prints as JSON must be what
// docs/reference/output.schema.json says of it.
func byOutputSchema() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	var printed bytes.Buffer
	status := run(ctx, os.Args[1:], os.Environ(), io.MultiWriter(os.Stdout, &printed), os.Stderr)
	if err := outputMistake(os.Args[1:], printed.Bytes()); err != nil {
		fmt.Fprintf(os.Stderr, "docs/reference/output.schema.json does not describe the output of %q: %v\n", os.Args[1:], err)
		status = 99
	}
	os.Exit(status)
}

// outputMistake says what of a command's JSON its schema does not describe.
func outputMistake(args []string, printed []byte) error {
	if !slices.Contains(args, "--output=json") && !slices.Contains(args, "export") || len(printed) == 0 {
		return nil
	}
	c := newCommands(os.Environ(), io.Discard, io.Discard)
	command, err := c.parse(args)
	if err != nil {
		return err
	}
	if c.answers[command] == nil {
		return fmt.Errorf("%s names no type", command)
	}
	root, err := jsonschema.UnmarshalJSON(strings.NewReader(docs.OutputSchema))
	if err != nil {
		return err
	}
	all := root.(map[string]any)
	of := all["properties"].(map[string]any)[command].(map[string]any)
	of["$defs"] = all["$defs"]
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("output.json", of); err != nil {
		return err
	}
	schema, err := compiler.Compile("output.json")
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(printed))
	dec.UseNumber()
	for {
		var value any
		if err := dec.Decode(&value); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := schema.Validate(value); err != nil {
			return err
		}
	}
}

func TestEachJSONOutputNamesItsTypes(t *testing.T) {
	c := newCommands(nil, io.Discard, io.Discard)
	for _, command := range c.app.Model().FlattenedCommands() {
		for _, f := range command.Flags {
			if f.Name == "output" && strings.Contains(f.Help, "json") && len(c.answers[command.FullCommand]) == 0 {
				t.Errorf("backout %s --output=json has no type", command.FullCommand)
			}
		}
	}
	for args, printed := range map[string]string{
		"version": `{"version":"1"}`, "audit verify": `{"ok":true,"entries":1,"head":{"seq":1,"hash":"a"},"more":1}`,
		"preflight": `{"service":1}`, "signal clear x": `[]`,
	} {
		if outputMistake(append(strings.Fields(args), "--output=json"), []byte(printed)) == nil {
			t.Errorf("%s passes as the answer of %s", printed, args)
		}
	}
}
