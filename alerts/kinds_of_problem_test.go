package alerts_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What the one case in load_test.go gives: its file is too large to keep.
const elsewhere = "large.yaml: the playbook is larger than 1024 KiB\n"

// Every message that the source can report occurs in a .want file: no kind of
// problem is without a case.
func TestEveryKindOfProblemHasACase(t *testing.T) {
	wants := elsewhere
	for _, folder := range []string{"bad", "odd"} {
		paths, err := filepath.Glob(filepath.Join(playbooks, folder, "*.want"))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range paths {
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			wants += string(b)
		}
	}
	lines := strings.Split(wants, "\n")
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := 0
	for _, src := range sources {
		if strings.HasSuffix(src, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, src, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			for _, arg := range reported(call) {
				pattern := pattern(arg)
				if strings.Trim(pattern, ".*") == "" {
					continue // handed through
				}
				kinds++
				re := regexp.MustCompile(`^(?:\S+: |  try: |.*, not )` + pattern + `$`)
				if !slices.ContainsFunc(lines, re.MatchString) {
					t.Errorf("%s: nothing in %s gives %q", fset.Position(arg.Pos()), playbooks, pattern)
				}
			}
			return true
		})
	}
	if kinds < 100 {
		t.Errorf("only %d messages were found in the source", kinds)
	}
}

// reported returns the arguments of a call that become a message, by the name
// of what is called.
func reported(call *ast.CallExpr) []ast.Expr {
	name := ""
	switch f := call.Fun.(type) {
	case *ast.SelectorExpr:
		name = f.Sel.Name
	case *ast.Ident:
		name = f.Name
	}
	index, ok := map[string]int{"at": 1, "fail": 1, "spoil": 2, "wrong": 2, "need": 2}[name]
	if !ok || len(call.Args) <= index {
		return nil
	}
	return call.Args[index : index+1]
}

var verb = regexp.MustCompile(`%[a-z]`)

// pattern turns a message's expression into a regular expression: what is not
// literal may be anything.
func pattern(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		if err != nil {
			return ".*"
		}
		return regexp.QuoteMeta(s)
	case *ast.BinaryExpr:
		return pattern(e.X) + pattern(e.Y)
	case *ast.ParenExpr:
		return pattern(e.X)
	case *ast.CallExpr:
		if f, ok := e.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Sprintf" {
			if lit, ok := e.Args[0].(*ast.BasicLit); ok {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					return verb.ReplaceAllString(regexp.QuoteMeta(s), ".*")
				}
			}
		}
	}
	return ".*"
}
