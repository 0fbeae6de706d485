package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locotoki/backout/remediation"
)

func TestASecondProcessIsRefusedUntilTheFirstIsGone(t *testing.T) {
	dsn := "sqlite:" + filepath.Join(t.TempDir(), "backout.db")
	cmd, lines := start(t, "write", dsn, "")
	if !lines.Scan() {
		t.Fatal("the child writes nothing")
	}
	s, err := Open(t.Context(), dsn)
	if err == nil {
		closeStore(t, s)
		t.Fatal("two processes have one database")
	}
	for _, want := range []string{fmt.Sprintf("another process (pid %d)", cmd.Process.Pid), "try: ", "backout.db"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the refusal %q does not say %q", err, want)
		}
	}
	r, err := OpenReadOnly(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	var first, later int64
	head := func(to *int64) {
		t.Helper()
		err := r.View(t.Context(), func(tx remediation.Tx) (err error) { *to, _, err = tx.Head(); return err })
		if err != nil {
			t.Fatal(err)
		}
	}
	head(&first)
	for later <= first && lines.Scan() { // the child goes on meanwhile
		head(&later)
	}
	if first < 1 || later <= first {
		t.Errorf("a reader saw the head at %d, later at %d", first, later)
	}
	if _, _, err := verify(t, r); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	killed(t, cmd)
	head(&later) // a reader needs no writer
	if s, err = Open(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	closeStore(t, r)
	closeStore(t, s)
}

func TestTheSameProcessIsRefusedToo(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), "sqlite:"+filepath.Join(dir, "backout.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("backout.db", filepath.Join(dir, "other.db")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"backout.db", "other.db", "./backout.db"} {
		_, err := Open(t.Context(), "sqlite:"+dir+"/"+name)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("this very process (pid %d)", os.Getpid())) {
			t.Errorf("%s: %v", name, err)
		}
	}
	closeStore(t, s)
	closeStore(t, s) // twice is harmless
	if s, err = Open(t.Context(), "sqlite:"+filepath.Join(dir, "other.db")); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
}

func TestFilesAreTheOwnersAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "data")
	s, err := Open(t.Context(), "sqlite:"+filepath.Join(dir, "odd #%25 name.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	if err := s.Update(t.Context(), whole("x")); err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(filepath.Dir(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		} else {
			files++
		}
		if fi.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, fi.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files != 4 { // the database, its log, the log's index, the lock
		t.Errorf("%d files", files)
	}
}

func TestADSNThatNamesNoDatabaseGetsAClearWord(t *testing.T) {
	for dsn, want := range map[string]string{
		"":                         "no scheme",
		"data/backout.db":          "no scheme",
		"mysql:secret":             `unknown scheme "mysql"`,
		"sqlite:":                  "names no file",
		"sqlite::memory:":          "names no file",
		"sqlite://data/backout.db": "two slashes",
		"sqlite:data/":             "names a folder",
		"sqlite:a\x00b":            "NUL",
	} {
		for name, open := range map[string]func(context.Context, string) (*Store, error){"Open": Open, "OpenReadOnly": OpenReadOnly} {
			_, err := open(t.Context(), dsn)
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "try: sqlite:PATH") {
				t.Errorf("%s(%q): %v, want %q and what to try", name, dsn, err, want)
			} else if strings.Contains(err.Error(), "secret") {
				t.Errorf("%s(%q) tells the secret: %v", name, dsn, err)
			}
		}
	}
	if _, err := OpenReadOnly(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "none.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Open(t.Context(), "sqlite:"+t.TempDir()); err == nil {
		t.Error("a folder was opened")
	}
}

func TestAStoreOpenedForReadingDoesNotWrite(t *testing.T) {
	dsn := "sqlite:" + filepath.Join(t.TempDir(), "backout.db")
	s, err := Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), whole("x")); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s) // the reader finds no log beside the database
	r, err := OpenReadOnly(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Update(t.Context(), whole("y")); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Update: %v", err)
	}
	if n := intact(t, r, []string{"x"}); n != 1 {
		t.Errorf("%d Updates", n)
	}
	// It does not keep a writer out.
	if s, err = Open(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), whole("y")); err != nil {
		t.Fatal(err)
	}
	if n := intact(t, r, []string{"x", "y"}); n != 2 {
		t.Errorf("%d Updates", n)
	}
	closeStore(t, s)
	closeStore(t, r)
}
