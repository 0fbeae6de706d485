package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// saidAll are the refusals after which nothing is to be done, or whose message says what.
var saidAll = []string{
	"a reason is required", "name the item to sign off", "unknown incident action", "unknown rollout action", // the commands ask for these
	"nothing was changed", "changed nothing that can be restored", "there is no incident", "is not claimed", "there is nothing to sign off", "customers are not affected",
	"there is no brief for it", "name one of them", "switch the release off by hand", "no service is known yet",
	"no Prometheus is configured", "with an expression", "there is no trigger to plot", "no playbook for service %q", // a page without its plot
	"the traffic cannot be set: %s", "data is never restored", "holds the restoring", "another rollout has started since", // with the reason, or what --force does
	"is not frozen", "there is no global freeze", "no playbook for service", // a hint is added where they go on
}

// What backout refuses to do comes with what to do next.
func TestEveryRefusalSaysWhatToDoNext(t *testing.T) {
	files, seen := token.NewFileSet(), 0
	err := filepath.WalkDir("../../remediation", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(files, name, nil, 0)
		if err != nil {
			return err
		}
		hinted := map[ast.Node]bool{} // what is an argument of hint.Add, or of what calls it
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			switch called(call) {
			case "Add", "overHint":
				hinted[call.Args[0]] = true
			case "Refuse":
				seen++
				text, ok := call.Args[1].(*ast.BasicLit)
				if !ok {
					return true // put together from parts
				}
				message, err := strconv.Unquote(text.Value)
				if err != nil {
					t.Error(err)
				}
				for _, all := range saidAll {
					if strings.Contains(message, all) {
						return true
					}
				}
				if !hinted[call] {
					t.Errorf("%s: %q does not say what to do next: hint.Add", files.Position(call.Pos()), message)
				}
			}
			return true
		})
		return nil
	})
	if err != nil || seen < 100 {
		t.Errorf("%d refusals found, %v", seen, err)
	}
}

// called is the name of the function in a call, without its package or receiver.
func called(call *ast.CallExpr) string {
	switch f := call.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}
