package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file that the race detector leaves out is in no run if its package is tested with it only.
func TestMakeTestsWithoutTheRaceDetectorWhatCannotRunWithIt(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	plain := map[string]bool{"../../deploy/demo": true, "../../remediation/docker": true}
	for line := range strings.Lines(strings.ReplaceAll(string(makefile), "\\\n", "")) {
		if name, packages, found := strings.Cut(line, " := "); found && name == "PLAIN" {
			for _, p := range strings.Fields(packages) {
				plain[filepath.Join("../..", p)] = true
			}
		}
	}
	found := 0
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2:
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if bytes.HasPrefix(text, []byte("//go:build !race\n")) {
			if found++; !plain[filepath.Dir(path)] {
				t.Errorf("no target runs %s: add its package to PLAIN in the Makefile", path)
			}
		}
		return err
	})
	if err != nil || found == 0 {
		t.Errorf("%d files, %v", found, err)
	}
}
