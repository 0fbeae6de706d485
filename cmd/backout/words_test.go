package main

import (
	"fmt"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// plainWords are the files that keep to plain words; of Go, the comments and the strings.
var plainWords = []string{
	"cmd/backout/*.go", "cmd/backout/*/*.go", "alerts/*.go", "alerts/draft/*", "hint/*.go", "trust/*.go", "rules/*.go", "rules/*/*.go", "receiver/*.go", "receiver/*/*.go", "receiver/page/templates/*",
	"remediation/*.go", "remediation/*/*.go", "remediation/*/*/*.go", "deploy/*/*.go", "deploy/*/*/*.go",
	"deploy/dev/*.sh", "Makefile", "*.md", "docs/*.md", "docs/*/*.md", "alerts/*.yaml", "docs/reference/*.y*ml", "deploy/demo/files/*.y*ml", "deploy/kubernetes/*.yaml",
	"deploy/dist/*.y*ml", "rules/*.yml", "testdata/scenarios/*.yaml",
}

// oldWords are phrases that read as if translated, and what to write instead.
var oldWords = []struct {
	phrase *regexp.Regexp
	plain  string
}{
	{regexp.MustCompile(`\bis no [a-z]+`), "invalid X, or not a X"},
	{regexp.MustCompile(`\btells? whether\b`), "reports whether"},
	{regexp.MustCompile(`\bof late\b`), "recently"},
	{regexp.MustCompile(`\bway back\b`), "rollback"},
	{regexp.MustCompile(`\bcomes? of\b`), "is generated from, results from"},
	{regexp.MustCompile(`\b[Ww]hoever\b`), "anyone who"},
	{regexp.MustCompile(`\bmend(s|ed)?\b`), "fix"},
	{regexp.MustCompile(`\b[Bb]eside\b`), "next to, with, apart from"},
	{regexp.MustCompile(`\bstands? (in|at|behind|on|there|twice|below|before)\b`), "is in, is listed"},
	{regexp.MustCompile(`\bsigned for\b`), "signed off"},
	{regexp.MustCompile(`\bone a [a-z]+\b`), "one per line"},
	{regexp.MustCompile(`\buntil it is thawed\b`), "until you thaw it"},
	{regexp.MustCompile(`\bnothing of\b`), "no part of"},
	{regexp.MustCompile(`\b[Hh]uman('s)? yes\b`), "an approval"},
	{regexp.MustCompile(`\blets? through\b`), "accepts"},
	{regexp.MustCompile(`\bwhere not given\b`), "Default: X"},
	{regexp.MustCompile(`\bcannot be told\b`), "is unknown"},
	{regexp.MustCompile(`\b[Bb]acks? (a|the|it|this) (\w+ )*out\b`), "rolls back"},
}

// plainAfterAll removes what an old phrase only looks like.
var plainAfterAll = strings.NewReplacer("here is no ", "", "is no longer ", "", "is no more than ", "")

func TestWhatPeopleReadIsInPlainWords(t *testing.T) {
	for _, pattern := range plainWords {
		files, err := filepath.Glob(filepath.Join("..", "..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no file %s: %v", pattern, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			for place, text := range wordsOf(t, file) {
				for _, old := range oldWords {
					if phrase := old.phrase.FindString(plainAfterAll.Replace(text)); phrase != "" {
						t.Errorf("%s: %q; try: %s", place, phrase, old.plain)
					}
				}
			}
		}
	}
}

// A hint is written by package hint alone: who shows an error can take it apart.
func TestNoHintIsWrittenIntoAMessage(t *testing.T) {
	written := regexp.MustCompile(`[;:,.] try: `)
	for _, pattern := range []string{"*/*.go", "*/*/*.go", "*/*/*/*.go"} {
		files, err := filepath.Glob(filepath.Join("..", "..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no file %s: %v", pattern, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") || strings.HasSuffix(filepath.Dir(file), "/hint") {
				continue
			}
			for place, text := range wordsOf(t, file) {
				if written.MatchString(text) && !strings.HasPrefix(text, "//") {
					t.Errorf("%s: %s has a hint in it; use hint.Add, or hint.Text for what is not an error", place, text)
				}
			}
		}
	}
}

// wordsOf is what people read of a file, by its place.
func wordsOf(t *testing.T, file string) map[string]string {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]string{}
	if !strings.HasSuffix(file, ".go") {
		for i, line := range strings.Split(string(source), "\n") {
			words[fmt.Sprintf("%s:%d", file, i+1)] = line
		}
		return words
	}
	files := token.NewFileSet()
	var s scanner.Scanner
	s.Init(files.AddFile(file, -1, len(source)), source, nil, scanner.ScanComments)
	for pos, tok, text := s.Scan(); tok != token.EOF; pos, tok, text = s.Scan() {
		if tok == token.COMMENT || tok == token.STRING {
			words[files.Position(pos).String()] = text
		}
	}
	return words
}
