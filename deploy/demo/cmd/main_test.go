package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/locotoki/backout/deploy/demo"
)

func TestTheDemoSaysWhatIsWrong(t *testing.T) {
	outside := t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		dir    string
		args   []string
		status int
		want   string
	}{
		"unknown scenario":    {here, []string{"--scenario=fire"}, 2, strings.Join(demo.Scenarios(), ", ")},
		"unknown flag":        {here, []string{"--twice"}, 2, "-once"},
		"unexpected argument": {here, []string{"errors"}, 2, `unexpected argument "errors"`},
		"help":                {here, []string{"--help"}, 0, "-scenario"},
		"not in a checkout":   {outside, nil, 2, "try: cd into one"},
		"nothing to run on":   {here, nil, 2, "try: make demo"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(tc.dir)
			t.Setenv("PATH", "")
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), tc.args, func(string) string { return "" }, &stdout, &stderr)
			if status != tc.status || !strings.Contains(stderr.String(), tc.want) || stdout.Len() > 0 {
				t.Errorf("exit status %d, stdout %q, stderr:\n%s\nwant %d and %q", status, &stdout, &stderr, tc.status, tc.want)
			}
		})
	}
}
