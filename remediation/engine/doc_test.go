package engine

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What a newcomer reads must be there, and stay short.
func TestThePathsInThePackageCommentAreShortAndLeadThroughFilesThatExist(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	paths := regexp.MustCompile(`// The path of [^-]+:\n//\n(?://   - .+\n)+`).FindAllString(string(doc), -1)
	if len(paths) != 2 {
		t.Fatalf("doc.go has %d paths, want that of a POST and that of a firing alert", len(paths))
	}
	for i, most := range []int{9, 15} {
		files := regexp.MustCompile(`//   - (\S+):`).FindAllStringSubmatch(paths[i], -1)
		if len(files) > most || len(files) != strings.Count(paths[i], "//   - ") {
			t.Errorf("%d files, want %d at most, each on a line of its own:\n%s", len(files), most, paths[i])
		}
		for _, file := range files {
			if _, err := os.Stat(filepath.Join("../..", file[1])); err != nil {
				t.Error(err)
			}
		}
	}
}
