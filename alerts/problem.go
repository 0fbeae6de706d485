package alerts

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a playbook, where, and what to write
// instead.
type Problem struct {
	File string `json:"file"`
	// Line is 0 if the problem is the file's own.
	Line    int    `json:"line"`
	Message string `json:"message"`
	Try     string `json:"try,omitempty"`
}

// String returns "file:line: message", and the hint on a line of its own.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": " + p.Message)
	if p.Try != "" {
		b.WriteString("\n  try: " + p.Try)
	}
	return b.String()
}

// Problems are all that is wrong with a playbook, sorted by file and line.
type Problems []Problem

// Error implements error: one problem after the other.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Sorted returns the problems in order, each once: what an anchor holds is
// looked at again wherever it is used.
func (ps Problems) Sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), strings.Compare(a.Message, b.Message))
	})
	return slices.Compact(ps)
}

// position is the place of each value of a playbook. A path is written like
// triggers[0].window.
type position struct {
	file  string
	lines map[string]int
	// blocks are the texts that are written as literal blocks.
	blocks map[string]bool
}

// has reports whether the file itself holds the value.
func (p position) has(path string) bool { _, ok := p.lines[path]; return ok }

// line returns the value's line, or that of the nearest value around it.
func (p position) line(path string) int {
	for ; path != ""; path = parent(path) {
		if n, ok := p.lines[path]; ok {
			return n
		}
	}
	return p.lines[""]
}

// Problem is a problem of the value at a path such as triggers[0].window.
func (p *Playbook) Problem(path, message, try string) Problem {
	return Problem{File: p.pos.file, Line: p.pos.line(path), Message: message, Try: try}
}

// InQuery is a problem of the expression at a path, so many lines below its first.
func (p *Playbook) InQuery(path string, lines int, message, try string) Problem {
	problem := p.Problem(path, message, try)
	if p.pos.blocks[path] { // its text begins on the line below its key
		problem.Line += 1 + lines
	}
	return problem
}

// report collects problems by the path they are at.
type report struct {
	pos  position
	list Problems
	// outside is how many of them are of noRules.
	outside int
	// bad holds the paths that a problem was reported for already: what else
	// would be said of their value is not true.
	bad map[string]bool
}

func newReport(file string) *report {
	return &report{pos: position{file: file, lines: map[string]int{"": 1}, blocks: map[string]bool{}}, bad: map[string]bool{}}
}

// at reports a problem of the value at path, unless it is known to be bad, or
// any of also is.
func (r *report) at(path, message, try string, also ...string) {
	if r.isBad(path) || slices.ContainsFunc(also, r.isBad) {
		return
	}
	r.add(path, r.pos.line(path), message, try)
}

// noRules are the keys that no generated rule and no test of one is made of; a trigger's plan
// is another.
var noRules = []string{"target", "flags", "plans", "limits", "checklist", "team"}

func (r *report) add(path string, line int, message, try string) {
	r.list = append(r.list, Problem{File: r.pos.file, Line: line, Message: message, Try: try})
	if first, _, _ := strings.Cut(strings.ReplaceAll(path, "[", "."), "."); slices.Contains(noRules, first) || first == "triggers" && strings.HasSuffix(path, "].plan") {
		r.outside++
	}
}

// isBad reports whether a problem was reported of a value or of one around it.
func (r *report) isBad(path string) bool {
	for ; path != ""; path = parent(path) {
		if r.bad[path] {
			return true
		}
	}
	return false
}

// spoil reports a problem of the value at path and keeps others from judging it.
func (r *report) spoil(path string, line int, message, try string) {
	r.add(path, line, message, try)
	r.bad[path] = true
}

// key and item extend a path.
func key(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// parent takes the last key or index off a path.
func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

func item(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }
