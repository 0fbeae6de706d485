//go:build unix

package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/trust"
)

// lockFile takes the lock of a database: an flock on a file next to it, which
// ends with the process, by kill -9 too. The file stays and holds the pid of
// the last holder. The database file itself will not do: closing any descriptor
// of it would end SQLite's own locks.
func lockFile(path string) (*os.File, error) {
	f, err := trust.OpenToWrite(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock database: %w", err)
	}
	if err := takeLock(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func takeLock(f *os.File, path string) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return hint.Add(fmt.Errorf("database %q is in use by %s", path, holder(f)), "stop it first, or use another file with --storage.dsn")
	}
	if err != nil {
		return fmt.Errorf("lock database %q: %w", path, err)
	}
	if err := f.Truncate(0); err != nil {
		return fmt.Errorf("lock database %q: %w", path, err)
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return fmt.Errorf("lock database %q: %w", path, err)
	}
	return nil
}

// holder says who has the lock, as far as the file tells.
func holder(f *os.File) string {
	b, err := io.ReadAll(io.LimitReader(f, 32))
	pid, perr := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err != nil || perr != nil:
		return "another process"
	case pid == os.Getpid():
		return fmt.Sprintf("this very process (pid %d)", pid)
	}
	return fmt.Sprintf("another process (pid %d)", pid)
}
