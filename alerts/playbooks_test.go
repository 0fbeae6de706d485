package alerts_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
)

var update = flag.Bool("update", false, "write the .want files again")

const playbooks = "../testdata/playbooks"

// parse parses one file of testdata under its base name.
func parse(t *testing.T, path string) (*alerts.Playbook, error) {
	t.Helper()
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return alerts.Parse(filepath.Base(path), src, kinds())
}

// files returns a folder's playbooks; an empty folder is a failure.
func files(t *testing.T, folder string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(playbooks, folder, "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no playbooks in %s: %v", folder, err)
	}
	return paths
}

// compare holds got against the file's .want.
func compare(t *testing.T, path, got string) {
	t.Helper()
	want := strings.TrimSuffix(path, ".yaml") + ".want"
	if *update {
		if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(want)
	if err != nil {
		t.Fatalf("%v (go test ./alerts -update writes it)", err)
	}
	if got != string(b) {
		t.Errorf("got:\n%s\nwant:\n%s", got, b)
	}
}

// text writes problems as Problems.Error does, and refuses one that does not
// stand in the file or has no hint.
func text(t *testing.T, ps alerts.Problems, path string) string {
	t.Helper()
	for _, p := range ps {
		if p.File != filepath.Base(path) {
			t.Errorf("%v names the file %q", p, p.File)
		}
		if p.Message == "" || p.Try == "" || strings.Contains(p.String(), "%!") {
			t.Errorf("a malformed problem: %v", p)
		}
	}
	return ps.Error() + "\n"
}

func TestEveryFaultIsReportedWithItsLineAndNothingElseIs(t *testing.T) {
	for _, path := range files(t, "bad") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			pb, err := parse(t, path)
			var ps alerts.Problems
			if !errors.As(err, &ps) || len(ps) == 0 {
				t.Fatalf("got %v, %v; want problems", pb, err)
			}
			if pb != nil {
				t.Error("a playbook came with the problems")
			}
			compare(t, path, text(t, ps, path))
		})
	}
}

func TestWhatIsOddLoadsAndIsWarnedOf(t *testing.T) {
	for _, path := range files(t, "odd") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			pb, err := parse(t, path)
			if err != nil {
				t.Fatal(err)
			}
			ps := alerts.Problems(pb.Warnings())
			if len(ps) == 0 {
				t.Fatal("no warning")
			}
			for _, p := range ps {
				if p.Line == 0 || p.Try == "" {
					t.Errorf("%v has no line or no hint", p)
				}
			}
			compare(t, path, text(t, ps, path))
		})
	}
}

func TestGoodPlaybooksLoad(t *testing.T) {
	for _, path := range files(t, "good") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			if _, err := parse(t, path); err != nil {
				t.Fatalf("\n%v", err)
			}
		})
	}
}
