package projectfile

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/locotoki/backout/hint"
)

// maxFile bounds the files of a project that are read.
const maxFile = 4 << 20

// Folders are the project folders that may be read and written: absolute paths. Nothing
// outside of them is.
type Folders []string

// Allowed returns path with its symbolic links resolved, if it lies in one of
// the configured project folders.
func (in Folders) Allowed(path string) (string, error) {
	folder, name, err := in.resolve(path)
	return filepath.Join(folder, name), err
}

// resolve returns the configured project folder that a path lies in, and the path
// relative to it, both with their symbolic links resolved.
func (in Folders) resolve(path string) (folder, name string, err error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", "", err
	}
	for _, p := range in {
		root, err := filepath.EvalSymlinks(p)
		if err != nil {
			continue // a folder that is not there allows nothing
		}
		if name, err := filepath.Rel(root, real); err == nil && filepath.IsLocal(name) {
			return root, name, nil
		}
	}
	folder = filepath.Dir(path)
	if info, err := os.Stat(real); err == nil && info.IsDir() {
		folder = path
	}
	return "", "", outside(path, folder)
}

func outside(path, folder string) error {
	return hint.Add(fmt.Errorf("%s is outside the allowed project folders", path), "docker: {projects: [%s]} in the configuration file", folder)
}

// Names says why the folders do not name the one that a path lies in, or returns nil. On a
// machine without that folder, the names alone decide. folder is what should be named.
func (in Folders) Names(path, folder string) error {
	if _, err := in.Allowed(path); err == nil {
		return nil
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		for _, p := range in {
			if name, err := filepath.Rel(p, path); err == nil && filepath.IsLocal(name) {
				return nil
			}
		}
	}
	return outside(path, folder)
}

// rooted is a path below one of the allowed project folders. All access goes through
// the folder's descriptor: a link that someone puts on the way after the path was
// resolved leads nowhere outside of it.
type rooted struct {
	*os.Root
	name string // relative to the folder, without a link on its way when it was resolved
}

// openRoot resolves a path and opens the project folder that it lies in.
func (in Folders) openRoot(path string) (rooted, error) {
	folder, name, err := in.resolve(path)
	if err != nil {
		return rooted{}, err
	}
	root, err := os.OpenRoot(folder)
	return rooted{root, name}, err
}

// fileContent is a file as it was read.
type fileContent struct {
	data     []byte
	missing  bool
	mode     fs.FileMode
	uid, gid int
}

// same compares what two reads saw.
func (f fileContent) same(g fileContent) bool {
	return f.missing == g.missing && bytes.Equal(f.data, g.data)
}

// read reads a regular file; a fifo does not hold it up.
func (r rooted) read() (fileContent, error) {
	file, err := r.OpenFile(r.name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fileContent{}, err
	}
	content, err := readOpen(file)
	return content, errors.Join(err, file.Close())
}

func readOpen(file *os.File) (content fileContent, err error) {
	info, err := file.Stat()
	if err != nil {
		return content, err
	}
	if !info.Mode().IsRegular() {
		return content, fmt.Errorf("%s is not a regular file", file.Name())
	}
	content.mode, content.uid, content.gid = info.Mode().Perm(), -1, -1
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		content.uid, content.gid = int(st.Uid), int(st.Gid)
	}
	if content.data, err = io.ReadAll(io.LimitReader(file, maxFile+1)); err == nil && len(content.data) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", file.Name(), maxFile)
	}
	return content, err
}

// Read reads a regular file of an allowed project. A file that is not
// there gives fs.ErrNotExist; a symbolic link out of the project folders is refused.
func (in Folders) Read(path string) ([]byte, error) {
	r, err := in.openRoot(path)
	if err != nil {
		return nil, err
	}
	content, err := r.read()
	return content.data, errors.Join(err, r.Close())
}

// Edit replaces a file's content by what edit makes of it: all of it or
// nothing, and durable once it returns. Mode and owner are kept, and a symbolic
// link stays one. A file that is not there is edit(nil); edit returns nil to
// remove it. The file's folder must exist. Two edits of files in one folder wait for
// each other, in whatever process they are.
func (in Folders) Edit(path string, edit func([]byte) ([]byte, error)) error {
	for range 5 {
		done, err := in.editOnce(path, edit)
		if err != nil || done {
			return err
		}
	}
	return fmt.Errorf("write %s: another program keeps writing it", path)
}

// editOnce returns false if the file changed in between.
func (in Folders) editOnce(path string, edit func([]byte) ([]byte, error)) (done bool, err error) {
	r, err := in.openRoot(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if missing {
		name := filepath.Base(path)
		if r, err = in.openRoot(filepath.Dir(path)); err == nil {
			r.name = filepath.Join(r.name, name)
			if _, lerr := r.Lstat(r.name); lerr == nil {
				err = errors.Join(hint.Add(fmt.Errorf("write %s: broken symbolic link", path), "remove it"), r.Close())
			}
		}
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	unlock, err := r.lock()
	if err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()

	before, err := r.readIfThere()
	if err != nil {
		return false, err
	}
	after, err := edit(before.data)
	if err != nil {
		return false, fmt.Errorf("edit %s: %w", path, err)
	}
	if before.same(fileContent{data: after, missing: after == nil}) {
		return true, nil
	}
	if done, err = r.replace(before, after); err != nil {
		err = fmt.Errorf("write %s: %w", path, err)
	}
	return done, err
}

func (r rooted) readIfThere() (fileContent, error) {
	content, err := r.read()
	if errors.Is(err, fs.ErrNotExist) {
		return fileContent{missing: true, mode: 0o644, uid: -1, gid: -1}, nil
	}
	return content, err
}

const (
	// lockTimeout bounds the wait for another edit in the same folder.
	lockTimeout = 10 * time.Second
	lockEvery   = 2 * time.Millisecond
)

// lock locks the file's folder against other edits. The folder, and not the file: a
// rename would take the lock away with the old file. A file system that has no such
// locks leaves it at the last look before the rename.
func (r rooted) lock() (unlock func() error, err error) {
	dir, err := r.Open(filepath.Dir(r.name))
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(lockTimeout)
	for {
		switch err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case err == nil:
			return dir.Close, nil // which unlocks it
		case errors.Is(err, syscall.EBADF), errors.Is(err, syscall.ENOLCK), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS):
			return dir.Close, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return nil, errors.Join(fmt.Errorf("lock its folder: %w", err), dir.Close())
		case time.Now().After(deadline):
			return nil, errors.Join(fmt.Errorf("another program has kept its folder locked for %s", lockTimeout), dir.Close())
		}
		time.Sleep(lockEvery)
	}
}

// replace puts after in the place of before; it returns false if the file is not
// before any more.
func (r rooted) replace(before fileContent, after []byte) (done bool, err error) {
	if after == nil {
		if err := r.Remove(r.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		return true, r.syncDir()
	}
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return false, err
	}
	name := filepath.Join(filepath.Dir(r.name), ".backout-"+hex.EncodeToString(random[:]))
	tmp, err := r.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, err
	}
	defer func() {
		if !done {
			err = errors.Join(err, r.Remove(name))
		}
	}()
	_, err = tmp.Write(after)
	if err == nil {
		err = tmp.Chmod(before.mode)
	}
	if err == nil && before.uid >= 0 && (before.uid != os.Geteuid() || before.gid != os.Getegid()) {
		err = tmp.Chown(before.uid, before.gid)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return false, err
	}
	// The last moment to see the edit of one who takes no lock, which the rename
	// would lose.
	now, err := r.readIfThere()
	if err != nil || !now.same(before) {
		return false, err
	}
	if err := r.Rename(name, r.name); err != nil {
		return false, err
	}
	done = true
	return true, r.syncDir()
}

func (r rooted) syncDir() error {
	d, err := r.Open(filepath.Dir(r.name))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Has reports whether a file can be read.
func (in Folders) Has(path string) bool {
	_, missing, err := in.ReadOptional(path)
	return err == nil && missing == ""
}

// ReadOptional reads a file that need not be there.
func (in Folders) ReadOptional(path string) (data []byte, missing string, err error) {
	data, err = in.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "yes", nil
	}
	return data, "", err
}

// MayWrite says why a file could not be replaced, or returns nil.
func (in Folders) MayWrite(path, missing string) error {
	const mayWrite, mayEnter = 2, 1
	dir, err := in.Allowed(filepath.Dir(path))
	if err == nil {
		err = syscall.Access(dir, mayWrite|mayEnter)
	}
	if err == nil && missing == "" {
		err = syscall.Access(path, mayWrite)
	}
	return err
}
