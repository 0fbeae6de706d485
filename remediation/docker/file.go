package docker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// maxFile bounds the files of a project that are read.
const maxFile = 4 << 20

// readProjectFile reads a regular file of an allowed project. A file that is not
// there gives fs.ErrNotExist; a symbolic link out of the project folders is refused.
func (c *Client) readProjectFile(path string) ([]byte, error) {
	real, err := c.allowed(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(real)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return os.ReadFile(real)
}

// editProjectFile replaces a file's content by what edit makes of it: all of it or
// nothing, and durable once it returns. Mode and owner are kept, and a symbolic
// link stays one. A file that is not there is edit(nil); edit returns nil to
// remove it. The file's folder must exist.
func (c *Client) editProjectFile(path string, edit func([]byte) ([]byte, error)) error {
	for range 5 {
		before, err := c.readProjectFile(path)
		missing := errors.Is(err, fs.ErrNotExist)
		if err != nil && !missing {
			return err
		}
		after, err := edit(before)
		if err != nil {
			return fmt.Errorf("edit %s: %w", path, err)
		}
		if bytes.Equal(before, after) && missing == (after == nil) {
			return nil
		}
		done, err := c.replaceFile(path, before, after, missing)
		if err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("write %s: somebody else keeps writing it", path)
}

// replaceFile puts after in the place of before; it returns false if the file is
// not before any more.
func (c *Client) replaceFile(path string, before, after []byte, missing bool) (done bool, err error) {
	dir, err := c.allowed(filepath.Dir(path))
	if err != nil {
		return false, err
	}
	real := filepath.Join(dir, filepath.Base(path))
	mode, uid, gid := fs.FileMode(0o644), -1, -1
	if !missing {
		if real, err = c.allowed(path); err != nil {
			return false, err
		}
		info, err := os.Stat(real)
		if err != nil {
			return false, err
		}
		mode = info.Mode().Perm()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(st.Uid), int(st.Gid)
		}
	}
	if _, err := os.Lstat(real); missing && err == nil {
		return false, fmt.Errorf("a symbolic link to nowhere; try: take it away")
	}
	if after == nil {
		if err := os.Remove(real); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		return true, syncDir(filepath.Dir(real))
	}

	tmp, err := os.CreateTemp(filepath.Dir(real), ".backout-*")
	if err != nil {
		return false, err
	}
	defer func() {
		if !done {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.Write(after)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil && uid >= 0 && (uid != os.Geteuid() || gid != os.Getegid()) {
		err = tmp.Chown(uid, gid)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return false, err
	}
	// The last moment to see another's edit, which the rename would lose.
	now, err := os.ReadFile(real)
	if gone := errors.Is(err, fs.ErrNotExist); err != nil && !gone || gone != missing || !bytes.Equal(now, before) {
		return false, nil
	}
	if err := os.Rename(tmp.Name(), real); err != nil {
		return false, err
	}
	done = true
	return true, syncDir(filepath.Dir(real))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
