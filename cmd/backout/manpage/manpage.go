// Package manpage writes backout(1), the manual page, from the model that --help is made
// of. The command calls it.
package manpage

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/version"
)

// Flag asks for the page.
const Flag = "--help-man"

// Page is the page of a day, in the macros of man(7).
func Page(app *kingpin.ApplicationModel, made time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH BACKOUT 1 %q %q\n", made.UTC().Format(time.DateOnly), "backout "+version.Version)
	section := func(name string, lines ...string) {
		b.WriteString(".SH " + name + "\n")
		for _, l := range lines {
			b.WriteString(l + "\n")
		}
	}
	section("NAME", `backout \- automatic rollback for canary releases`)
	section("SYNOPSIS", `.B backout`, `.I command`, `.RI [ flags ]`, `.RI [ arguments ]`)
	section("DESCRIPTION",
		roff("When an alert fires, backout turns the feature flag off, then restores the previous image, then, once someone approves, the previous schema. "+
			"A playbook per service says when and how. backout serve is the server; the other commands ask it, change it, or work on files."))
	section("COMMANDS")
	for _, command := range app.FlattenedCommands() {
		if command.Hidden || command.Name == "help" {
			continue
		}
		fmt.Fprintf(&b, ".SS %s\n%s\n", roffWord(synopsis(command)), roff(command.Help))
		for _, a := range command.Args {
			tagged(&b, `\fI`+roffWord(a.Name)+`\fR`, a.Help)
		}
		for _, f := range command.Flags {
			if !f.Hidden {
				tagged(&b, flagName(f), f.Help+preset(f))
			}
		}
	}
	section("EXIT STATUS")
	for _, s := range []struct{ status, meaning string }{
		{"0", "All is well."}, {"1", "A negative answer, such as a failed check."}, {"2", "Wrong usage or configuration, or no answer."},
	} {
		tagged(&b, s.status, s.meaning)
	}
	section("ENVIRONMENT")
	for _, e := range []struct{ name, meaning string }{
		{"BACKOUT_URL", "The server's address, where --url is not given."},
		{"BACKOUT_TOKEN_FILE", "The file with the token, where --token-file is not given."},
		{"NO_COLOR", "Any value turns colors off."},
	} {
		tagged(&b, e.name, e.meaning)
	}
	section("FILES")
	tagged(&b, "/etc/backout/backout.yml", "The configuration of the packaged service.")
	tagged(&b, "/etc/backout/playbook.yaml", "Its playbook. Keep it writable by its owner only: it decides what gets run.")
	tagged(&b, "/var/lib/backout/backout.db", "Its database, with the audit log.")
	section("SEE ALSO", `.BR prometheus (1),`, `.BR systemctl (1)`, `.PP`, roff("The documentation: https://github.com/locotoki/backout"))
	return b.String()
}

// tagged is one entry of a list.
func tagged(b *strings.Builder, tag, text string) {
	fmt.Fprintf(b, ".TP\n%s\n%s\n", tag, roff(text))
}

// preset is a flag's default in words.
func preset(f *kingpin.FlagModel) string {
	if len(f.Default) == 0 || f.IsBoolFlag() || f.Default[0] == "" || strings.Contains(f.Help, "Default:") {
		return ""
	}
	return " Default: " + strings.TrimSuffix(strings.Join(f.Default, ", "), ".") + "."
}

func flagName(f *kingpin.FlagModel) string {
	name := `\fB` + roffWord("--"+f.Name) + `\fR`
	if f.Short != 0 {
		name = `\fB` + roffWord("-"+string(f.Short)) + `\fR, ` + name
	}
	switch {
	case f.IsBoolFlag() && slices.Contains(f.Default, "true"):
		name = `\fB` + roffWord("--no-"+f.Name) + `\fR`
	case !f.IsBoolFlag():
		value := strings.ToUpper(f.Name[strings.LastIndexByte(f.Name, '.')+1:])
		if f.PlaceHolder != "" {
			value = strings.Trim(f.PlaceHolder, `"`)
		}
		name += `=\fI` + roffWord(value) + `\fR`
	}
	return name
}

// roff is text as one paragraph, a sentence per line.
func roff(text string) string {
	text = roffWord(strings.Join(strings.Fields(text), " "))
	text = strings.ReplaceAll(text, ". ", ".\n")
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

// roffWord escapes what roff reads as its own, and keeps a dash that people copy.
func roffWord(s string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, `"`, `\(dq`, "^", `\(ha`, "~", `\(ti`).Replace(s)
}

// synopsis is a command with what it requires.
func synopsis(c *kingpin.CmdModel) string {
	words := "backout " + c.FullCommand + " " + c.FlagSummary()
	if len(c.Args) > 0 { // kingpin's ArgSummary panics without
		words += " " + c.ArgSummary()
	}
	return strings.Join(strings.Fields(words), " ")
}
