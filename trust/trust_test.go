package trust

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// place is a folder below a sticky one, as mkdtemp makes it below /tmp.
func place(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sticky", "ours")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	chmod(t, filepath.Dir(dir), 0o777|fs.ModeSticky)
	return dir
}

func put(t *testing.T, path string, mode fs.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	chmod(t, path, mode)
	return path
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, at string) string {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
	return at
}

// give makes a file another user's. Only root can, so anybody else looks at what
// is theirs with another's eyes.
func give(t *testing.T, path string) user {
	t.Helper()
	if me := us(); me != 0 {
		return me + 1
	}
	if err := os.Lchown(path, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	return us()
}

func TestAFileThatOnlyWeCanChangeIsRead(t *testing.T) {
	for name, make := range map[string]func(dir string) string{
		"readable by all":      func(dir string) string { return put(t, filepath.Join(dir, "f"), 0o644) },
		"below an open sticky": func(dir string) string { return put(t, filepath.Join(dir, "f"), 0o600) },
		"behind a link of ours": func(dir string) string {
			put(t, filepath.Join(dir, "d", "f"), 0o600)
			return link(t, "d/f", filepath.Join(dir, "l"))
		},
		"behind a folder's link": func(dir string) string {
			put(t, filepath.Join(dir, "d", "f"), 0o600)
			link(t, "d", filepath.Join(dir, "l"))
			return filepath.Join(dir, "l", "..", "d", "f")
		},
		"as Kubernetes mounts one": func(dir string) string {
			put(t, filepath.Join(dir, "..1", "f"), 0o600)
			link(t, "..1", filepath.Join(dir, "..data"))
			return link(t, "..data/f", filepath.Join(dir, "f"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := ReadFile(make(place(t)), 100)
			if err != nil || string(content) != "content" {
				t.Errorf("%q, %v", content, err)
			}
		})
	}
}

func TestAFileThatOthersCanChangeIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		make func(dir string) string
		word string
	}{
		"written by its group": {func(dir string) string { return put(t, filepath.Join(dir, "f"), 0o620) }, "chmod go-w"},
		"written by all":       {func(dir string) string { return put(t, filepath.Join(dir, "f"), 0o666) }, "mode 0666"},
		"in an open folder":    {func(dir string) string { chmod(t, dir, 0o777); return put(t, filepath.Join(dir, "f"), 0o600) }, "mode 0777"},
		"in a group's folder":  {func(dir string) string { chmod(t, dir, 0o770); return put(t, filepath.Join(dir, "f"), 0o600) }, "mode 0770"},
		"below an open folder": {func(dir string) string {
			f := put(t, filepath.Join(dir, "d", "f"), 0o600)
			chmod(t, dir, 0o777)
			return f
		}, "mode 0777"},
		"a link to an open one": {func(dir string) string {
			put(t, filepath.Join(dir, "f"), 0o666)
			return link(t, "f", filepath.Join(dir, "l"))
		}, "mode 0666"},
		"links in a ring": {func(dir string) string {
			link(t, "a", filepath.Join(dir, "b"))
			return link(t, "b", filepath.Join(dir, "a"))
		}, "symbolic links"},
		"too large": {func(dir string) string {
			f := put(t, filepath.Join(dir, "f"), 0o600)
			_ = os.Truncate(f, 101)
			return f
		}, "larger than 100"},
		"a folder": {func(dir string) string { return dir }, "not a regular file"},
		"a pipe": {func(dir string) string {
			f := filepath.Join(dir, "f")
			if err := syscall.Mkfifo(f, 0o600); err != nil {
				t.Fatal(err)
			}
			return f
		}, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ReadFile(tc.make(place(t)), 100); err == nil || !strings.Contains(err.Error(), tc.word) {
				t.Errorf("error is %v, want %q", err, tc.word)
			}
		})
	}
	if _, err := ReadFile(filepath.Join(place(t), "none"), 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that is missing: %v", err)
	}
}

func TestWhatIsAnothersIsRefused(t *testing.T) {
	type maker func(dir, file string) (path string, me user)
	for name, make := range map[string]maker{
		"the file":     func(_, file string) (string, user) { return file, give(t, file) },
		"its folder":   func(dir, file string) (string, user) { return file, give(t, dir) },
		"a sticky one": func(dir, file string) (string, user) { return file, give(t, filepath.Dir(dir)) },
		"a link to it": func(dir, file string) (string, user) {
			l := link(t, file, filepath.Join(dir, "l"))
			return l, give(t, l)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := place(t)
			path, me := make(dir, put(t, filepath.Join(dir, "f"), 0o600))
			if _, err := me.readAll(path, read, 100); err == nil || !strings.Contains(err.Error(), "belongs to user") {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestASecretThatOthersCanReadIsRefused(t *testing.T) {
	for _, mode := range []fs.FileMode{0o604, 0o640, 0o644} {
		if _, err := ReadSecret(put(t, filepath.Join(place(t), "f"), mode), 100); !errors.Is(err, ErrOpenToOthers) || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	for _, mode := range []fs.FileMode{0o600, 0o400} {
		if _, err := ReadSecret(put(t, filepath.Join(place(t), "f"), mode), 100); err != nil {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestASharedSecretMayBeReadByItsGroupOnly(t *testing.T) {
	for mode, refused := range map[fs.FileMode]bool{0o600: false, 0o640: false, 0o440: false, 0o660: true, 0o620: true, 0o604: true, 0o644: true} {
		if _, err := ReadShared(put(t, filepath.Join(place(t), "f"), mode), 100); (err != nil) != refused {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestNothingIsWrittenThroughALink(t *testing.T) {
	dir := place(t)
	target := put(t, filepath.Join(dir, "target"), 0o600)
	if _, err := OpenToWrite(link(t, "target", filepath.Join(dir, "l")), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a link: %v", err)
	}
	if _, err := OpenToWrite(link(t, "none", filepath.Join(dir, "dangling")), os.O_RDWR|os.O_CREATE, 0o600); err == nil {
		t.Error("a link to nothing")
	}
	if _, err := OpenToWrite(put(t, filepath.Join(dir, "open"), 0o666), os.O_RDWR|os.O_TRUNC, 0o600); err == nil {
		t.Error("one that all can write")
	}
	for _, f := range []string{"target", "open"} {
		if content, err := os.ReadFile(filepath.Join(dir, f)); err != nil || string(content) != "content" {
			t.Errorf("%s holds %q, %v", f, content, err)
		}
	}
	for _, path := range []string{target, filepath.Join(dir, "new")} {
		f, err := OpenToWrite(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := f.Stat(); err != nil || info.Size() != 0 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAFolderThatOthersCanWriteIsRefused(t *testing.T) {
	dir := place(t)
	if err := Folder(dir); err != nil {
		t.Error(err)
	}
	if err := Folder(put(t, filepath.Join(dir, "f"), 0o600)); err == nil {
		t.Error("a file is a folder")
	}
	chmod(t, dir, 0o733)
	if err := Folder(dir); err == nil {
		t.Error("one that others can put files into")
	}
	chmod(t, dir, 0o1777)
	if err := Folder(dir); err == nil {
		t.Error("one with the sticky bit that others can put files into")
	}
}
