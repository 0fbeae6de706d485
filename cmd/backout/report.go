package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"unicode"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/cmd/backout/flags"
	"github.com/locotoki/backout/cmd/backout/terminal"
	"github.com/locotoki/backout/receiver/report"
)

// reportOutput is a flag whose value is text, json, or the file to write.
type reportOutput struct{ value string }

// String implements kingpin.Value.
func (v *reportOutput) String() string { return v.value }

// Set implements kingpin.Value.
func (v *reportOutput) Set(s string) error {
	switch {
	case s == "-":
		s = outputText
	case s != outputText && s != outputJSON && !strings.HasSuffix(s, ".md"):
		return fmt.Errorf("--output: invalid value %q; use text, -, json, or a file name that ends in .md", s)
	}
	v.value = s
	return nil
}

func (c *commands) addIncidentReport(parent *kingpin.CmdClause) {
	clause := parent.Command("report", "Write a post-incident report in Markdown: what happened, what was done or held and why, how long it took, what is open.")
	id := flags.Name(clause, "id", "The incident, such as inc-1.")
	var output reportOutput
	clause.Flag("output", "A file such as inc-1.md, with its plots as SVG files in the same folder; text or - for the terminal; json.").
		PlaceHolder("FILE.md").Default(outputText).SetValue(&output)
	c.answers[clause.FullCommand()] = []reflect.Type{reflect.TypeFor[report.Report]()}
	from := c.sourceFlags(clause)
	c.add(clause, func(ctx context.Context) error {
		return from.with(ctx, func(src source) error {
			made, err := report.New(ctx, src, *id, c.now())
			if err != nil {
				return err
			}
			switch output.value {
			case outputJSON:
				return c.printJSON(made)
			case outputText:
				return c.print(string(made.Markdown(nil)))
			}
			return c.writeReport(made, output.value)
		})
	})
}

// writeReport writes a report and its plots as separate files: GitHub shows no
// picture that is embedded in the text.
func (c *commands) writeReport(made *report.Report, name string) error {
	dir, base := filepath.Split(name)
	if _, err := os.Stat(cmp.Or(dir, ".")); errors.Is(err, fs.ErrNotExist) {
		return wrong("mkdir -p "+terminal.Clean(dir), "--output: the folder %s does not exist", terminal.Clean(dir))
	}
	var files []string
	for _, p := range made.Plots {
		file := strings.TrimSuffix(base, ".md") + "-" + fileWord(p.Trigger) + ".svg"
		if err := writeFile(filepath.Join(dir, file), report.PlotFile(p)); err != nil {
			return wrong("", "--output: %w", err)
		}
		files = append(files, file)
	}
	if err := writeFile(name, made.Markdown(files)); err != nil {
		return wrong("", "--output: %w", err)
	}
	var b strings.Builder
	for _, file := range append([]string{base}, files...) {
		fmt.Fprintf(&b, "wrote %s\n", terminal.Clean(filepath.Join(dir, file)))
	}
	return c.print(b.String())
}

// fileWord makes a word from outside safe for a file name.
func fileWord(s string) string {
	return strings.Map(func(r rune) rune {
		if r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_') {
			return r
		}
		return '-'
	}, s[:min(len(s), 60)])
}
