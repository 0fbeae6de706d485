package projectfile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/locotoki/backout/hint"
)

// projectFolder is a folder that may be written, and the folder next to it that may not.
func projectFolder(t *testing.T) (in Folders, dir, outside string) {
	t.Helper()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, outside = filepath.Join(base, "project"), filepath.Join(base, "outside")
	for _, d := range []string{filepath.Join(dir, "sub"), outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return Folders{dir}, dir, outside
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
}

func TestEditsOfOneFileDoNotLoseEachOther(t *testing.T) {
	in, dir, _ := projectFolder(t)
	env := filepath.Join(dir, ".env")
	const hands, flags = 4, 8
	var before strings.Builder
	for i := range hands * flags {
		fmt.Fprintf(&before, "FLAG%d=1\n", i)
	}
	put(t, env, before.String())
	var wg sync.WaitGroup
	for hand := range hands {
		// Each as another process would: nothing but the file is shared.
		wg.Go(func() {
			for i := range flags {
				name := fmt.Sprintf("FLAG%d", hand*flags+i)
				if err := in.Edit(env, func(b []byte) ([]byte, error) { return SetEnv(b, name, "0") }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	after, err := os.ReadFile(env)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(after), "=1"); n > 0 {
		t.Errorf("%d of %d edits were lost", n, hands*flags)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".backout*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAnEditWaitsForWhoHasTheFolderLocked(t *testing.T) {
	in, dir, _ := projectFolder(t)
	env := filepath.Join(dir, ".env")
	put(t, env, "FLAG=1\n")
	lock, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- in.Edit(env, func(b []byte) ([]byte, error) {
			if !strings.Contains(string(b), "OTHER=2") {
				return nil, fmt.Errorf("it was read before the lock was free: %q", b)
			}
			return SetEnv(b, "FLAG", "0")
		})
	}()
	put(t, env, "FLAG=1\nOTHER=2\n")
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(env); err != nil || string(b) != "FLAG=0\nOTHER=2\n" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestALinkThatIsSwappedInLeadsNowhere(t *testing.T) {
	in, dir, outside := projectFolder(t)
	sub := filepath.Join(dir, "sub")
	swap := func() {
		if err := os.Rename(sub, sub+"-was"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(outside, sub); err != nil {
			t.Fatal(err)
		}
	}
	back := func() {
		if err := os.Remove(sub); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(sub+"-was", sub); err != nil {
			t.Fatal(err)
		}
	}
	env := filepath.Join(sub, ".env")
	put(t, env, "FLAG=1\n")
	put(t, filepath.Join(outside, ".env"), "FLAG=1\n")
	if err := in.Edit(env, func(b []byte) ([]byte, error) {
		swap()
		return SetEnv(b, "FLAG", "0")
	}); err == nil {
		t.Error("written through a link")
	}
	back()
	if err := in.Edit(env, func([]byte) ([]byte, error) { swap(); return nil, nil }); err == nil {
		t.Error("removed through a link")
	}
	back()
	r, err := in.openRoot(env)
	if err != nil {
		t.Fatal(err)
	}
	swap()
	if got, err := r.read(); err == nil {
		t.Errorf("read through a link: %q", got.data)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(outside)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(outside, ".env")); err != nil || string(b) != "FLAG=1\n" || len(left) != 1 {
		t.Errorf("outside: %q, %v, %v", b, left, err)
	}
}

func TestOnlyRegularFilesAreRead(t *testing.T) {
	in, dir, _ := projectFolder(t)
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, filepath.Join(dir, "sub")} {
		if _, err := in.Read(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestTheHintNamesTheFolderOfTheProject(t *testing.T) {
	shop := filepath.Join(t.TempDir(), "shop")
	if err := os.Mkdir(shop, 0o700); err != nil {
		t.Fatal(err)
	}
	env := filepath.Join(shop, ".env")
	if err := os.WriteFile(env, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{shop, env} {
		_, err := Folders{t.TempDir()}.Allowed(path)
		if _, try := hint.Of(err); !strings.Contains(try, "{projects: ["+shop+"]}") {
			t.Errorf("%s: %q", path, try)
		}
	}
}
