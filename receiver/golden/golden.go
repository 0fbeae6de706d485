// Package golden compares what a test made with a file of the test's testdata. Only tests
// import it.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Compare compares got with a file of testdata, or writes the file with -update.
func Compare(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; to write it, add -update", err)
	}
	if string(want) != string(got) {
		t.Errorf("%s is another; to see it, add -update and look at git diff\n%s", path, got)
	}
}
