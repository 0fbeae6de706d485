package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// printer writes what the demo says. The first error of the writer is kept and ends it all.
type printer struct {
	out io.Writer
	err error
}

func (p *printer) write(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.out, format, args...)
	}
}

// part is a line about a part of the stack.
func (p *printer) part(name, what string) { p.write("  %-14s %s\n", name, what) }

// stage is a stage that was seen, and below it what it means.
func (p *printer) stage(since time.Duration, name, what string, meaning ...string) {
	p.write("+%5.1f s  %-10s %s\n", since.Seconds(), name, what)
	for _, m := range meaning {
		p.write("%21s%s\n", "", m)
	}
}

// block indents text of another program.
func (p *printer) block(text string) {
	for line := range strings.Lines(text) {
		p.write("    %s\n", strings.TrimRight(line, "\n"))
	}
}
