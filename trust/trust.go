// Package trust decides which files backout believes, runs or writes: the one
// notion of that for all packages, which is why it imports none of them but hint.
//
// A file is trusted if nobody but us and root can change it:
//
//   - it belongs to us or to root, and neither its group nor others can write it;
//   - so does every folder on the way to it, from / on. A folder with the sticky
//     bit, as /tmp, may be written by all: nobody can rename or remove there what
//     is not theirs. One that its group can write is ours if the group is: it has
//     our number and no other member, as the fsGroup of a volume in Kubernetes. The
//     folder has the setgid bit, as each of such a volume, and no ACL;
//   - every symbolic link on the way belongs to us or to root too.
//
// A secret, further, cannot be read by others, nor by its group, unless it is
// root's and the group is how we read it, or it is one that teams share in a group
// (an address of a database, a token of the command line). Where backout writes, the last name of
// the path is not a link at all.
//
// All is checked on the descriptor that is then read, written or run, never on a
// name that could be exchanged in between.
package trust

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/locotoki/backout/hint"
)

// ErrOpenToOthers is wrapped where others can read a secret.
var ErrOpenToOthers = errors.New("group or others have access to it")

// Error says why a file is not trusted; it comes with a hint.
type Error struct {
	Path    string
	Problem string
	// IsFolder: it is a folder on the way.
	IsFolder bool
	err      error
}

func (e *Error) Error() string { return e.Path + " " + e.Problem }

func (e *Error) Unwrap() error { return e.err }

// use is what a file is opened for.
type use int

const (
	read use = iota
	secret
	shared // a secret that its group may read
	write
)

// maxLinks is how many symbolic links a path may have.
const maxLinks = 40

// user is who we are; root is always trusted.
type user int

func us() user { return user(os.Geteuid()) }

// Open opens a regular file that only we and root can change.
func Open(path string) (*os.File, error) { return us().open(path, read, os.O_RDONLY, 0) }

// ReadShared is ReadSecret for what its group may read too.
func ReadShared(path string, max int64) ([]byte, error) { return us().readAll(path, shared, max) }

// ReadFile returns the content of a regular file that only we and root can
// change, and that has max bytes at most.
func ReadFile(path string, max int64) ([]byte, error) { return us().readAll(path, read, max) }

// ReadSecret is ReadFile for what nobody else may read either.
func ReadSecret(path string, max int64) ([]byte, error) { return us().readAll(path, secret, max) }

// OpenToWrite opens, with the flags and the mode of os.OpenFile, a regular file
// that is not a link and that only we and root can change. Nothing is truncated
// before that is known.
func OpenToWrite(path string, flag int, perm fs.FileMode) (*os.File, error) {
	f, err := us().open(path, write, flag&^os.O_TRUNC, perm)
	if err != nil || flag&os.O_TRUNC == 0 {
		return f, err
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Real returns a path without symbolic links, each of which was ours or root's, as
// was every folder on the way.
func Real(path string) (string, error) { return us().resolve(path, read) }

// Writable refuses what OpenToWrite does, without opening it: SQLite loses its locks
// once anybody closes a descriptor of its file.
func Writable(path string) error {
	me := us()
	real, err := me.resolve(path, write)
	if err != nil {
		return err
	}
	info, err := os.Lstat(real)
	if err != nil {
		return err
	}
	return me.judge(info, real, write)
}

// Folder refuses a folder that others than we and root can put files into, or
// exchange.
func Folder(path string) error {
	me := us()
	real, err := me.resolve(path, read)
	if err != nil {
		return err
	}
	info, err := os.Lstat(real)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &Error{Path: path, Problem: "is not a folder"}
	}
	return me.unchangeable(real, info)
}

func (me user) readAll(path string, u use, max int64) (content []byte, err error) {
	f, err := me.open(path, u, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	content, err = io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(content)) > max {
		err = &Error{Path: path, Problem: fmt.Sprintf("is larger than %d bytes", max)}
	}
	return content, err
}

func (me user) open(path string, u use, flag int, perm fs.FileMode) (*os.File, error) {
	real, err := me.resolve(path, u)
	if err != nil {
		return nil, err
	}
	// Without O_NONBLOCK, a named pipe would hold us up for ever. The folders on
	// the way are ours or root's, so nobody else puts a link there now.
	f, err := os.OpenFile(real, flag|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, perm)
	if err != nil {
		return nil, err
	}
	if err := me.check(f, path, u); err != nil { // named as the user named it
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// check looks at the opened file.
func (me user) check(f *os.File, path string, u use) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return me.judge(info, path, u)
}

func (me user) judge(info fs.FileInfo, path string, u use) error {
	if !info.Mode().IsRegular() {
		return &Error{Path: path, Problem: "is not a regular file"}
	}
	closed := fs.FileMode(0o077)
	if u == shared || owner(info) == 0 && me != 0 {
		closed = 0o027 // or root's file, which we read as its group
	}
	if mode := info.Mode().Perm(); (u == secret || u == shared) && mode&closed != 0 {
		return hint.Add(&Error{Path: path, Problem: fmt.Sprintf("has mode %04o: %v", mode, ErrOpenToOthers), err: ErrOpenToOthers}, "chmod 600 %s", path)
	}
	return me.unchangeable(path, info)
}

// unchangeable refuses what others than we and root own or can write.
func (me user) unchangeable(path string, info fs.FileInfo) error {
	if err := me.owned(path, info); err != nil {
		return err
	}
	mode := info.Mode()
	if mode.IsDir() && mode.Perm()&0o022 == 0o020 && mode&fs.ModeSetgid != 0 && me.alone(info) && !hasACL(path) {
		return nil
	}
	if mode.Perm()&0o022 != 0 {
		return hint.Add(&Error{Path: path, Problem: fmt.Sprintf("can be written by group or others (mode %04o)", mode.Perm()), IsFolder: mode.IsDir()},
			"chmod go-w %s", path)
	}
	return nil
}

// alone reports whether a file's group is ours alone.
func (me user) alone(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || me == 0 || user(st.Gid) != me {
		return false
	}
	groups, gerr := accounts("/etc/group")
	users, uerr := accounts("/etc/passwd")
	return gerr == nil && uerr == nil && sole(strconv.Itoa(int(me)), groups, users)
}

// accounts returns the text of a file of accounts; an image may have none.
func accounts(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return string(raw), err
}

// sole reports whether no user but the one with the group's number is in a group, by the texts of /etc/group and
// /etc/passwd.
func sole(number, groups, users string) bool {
	for line := range strings.Lines(groups) { // name:password:number:members
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) > 3 && f[2] == number && f[3] != "" {
			return false
		}
	}
	for line := range strings.Lines(users) { // name:password:number:group:...
		if f := strings.Split(line, ":"); len(f) > 3 && f[3] == number && f[2] != number {
			return false
		}
	}
	return true
}

func (me user) owned(path string, info fs.FileInfo) error {
	if uid := owner(info); uid != 0 && user(uid) != me {
		return hint.Add(&Error{Path: path, Problem: fmt.Sprintf("belongs to user %d, who could change it", uid), IsFolder: info.IsDir()}, "chown root %s", path)
	}
	return nil
}

func owner(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// resolve follows the links of a path, looks at every folder on the way, and
// returns a path without links. What is at its end is not looked at, and need not
// be there; it is not followed where u is write.
func (me user) resolve(path string, u use) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	at, rest := "/", strings.Split(strings.TrimPrefix(abs, "/"), "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		if err := me.way(at); err != nil {
			return "", err
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		switch {
		case err != nil && len(rest) > 0 && errors.Is(err, fs.ErrNotExist):
			return "", &os.PathError{Op: "open", Path: path, Err: syscall.ENOENT} // as open itself would say it
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return "", err
		case err != nil || info.Mode()&fs.ModeSymlink == 0:
			at = next
			continue
		case len(rest) == 0 && u == write:
			return "", hint.Add(&Error{Path: next, Problem: "is a symbolic link, and backout writes through none"}, "the file's own path")
		}
		if links++; links > maxLinks {
			return "", &os.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
		}
		if err := me.owned(next, info); err != nil {
			return "", err
		}
		to, err := os.Readlink(next)
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(to) {
			at = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return at, nil
}

// way looks at a folder on the way to a file.
func (me user) way(dir string) error {
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return &os.PathError{Op: "open", Path: dir, Err: syscall.ENOTDIR}
	case info.Mode()&fs.ModeSticky != 0:
		return me.owned(dir, info)
	}
	return me.unchangeable(dir, info)
}
