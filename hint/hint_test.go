package hint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/locotoki/backout/hint"
)

// opaque is an error whose text is not that of what it wraps.
type opaque struct{ error }

func (opaque) Error() string   { return "something secret failed" }
func (o opaque) Unwrap() error { return o.error }

func TestAnErrorIsSplitIntoMessageAndHint(t *testing.T) {
	missing := hint.Add(fmt.Errorf("read %s: %w", "a.yml", fs.ErrNotExist), "write %s", "it")
	for name, c := range map[string]struct {
		err                error
		text, message, try string
	}{
		"plain":                {fs.ErrNotExist, "file does not exist", "file does not exist", ""},
		"hinted":               {missing, "read a.yml: file does not exist; try: write it", "read a.yml: file does not exist", "write it"},
		"wrapped":              {fmt.Errorf("start: %w", missing), "start: read a.yml: file does not exist; try: write it", "start: read a.yml: file does not exist", "write it"},
		"in the middle":        {fmt.Errorf("start: %w (twice)", missing), "start: read a.yml: file does not exist; try: write it (twice)", "start: read a.yml: file does not exist (twice)", "write it"},
		"hinted twice":         {hint.Add(missing, "start again"), "read a.yml: file does not exist; try: write it; try: start again", "read a.yml: file does not exist", "write it; start again"},
		"joined":               {errors.Join(missing, hint.Add(errors.New("full"), "rm -r /tmp/x")), "read a.yml: file does not exist; try: write it\nfull; try: rm -r /tmp/x", "read a.yml: file does not exist\nfull", "write it; rm -r /tmp/x"},
		"another text":         {opaque{missing}, "something secret failed", "something secret failed", ""},
		"the text says it":     {errors.New("a; try: b"), "a; try: b", "a; try: b", ""},
		"an empty hint":        {hint.Add(fs.ErrNotExist, ""), "file does not exist", "file does not exist", ""},
		"a percent sign in it": {hint.Add(fs.ErrNotExist, "%s", "50%s"), "file does not exist; try: 50%s", "file does not exist", "50%s"},
	} {
		message, try := hint.Of(c.err)
		if c.err.Error() != c.text || message != c.message || try != c.try {
			t.Errorf("%s: %q is split into %q and %q, want %q, %q and %q", name, c.err, message, try, c.text, c.message, c.try)
		}
	}
	if message, try := hint.Of(nil); message+try != "" {
		t.Errorf("no error: %q, %q", message, try)
	}
	if !errors.Is(missing, fs.ErrNotExist) {
		t.Error("what a hinted error wraps is not found")
	}
}
