package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/locotoki/backout/hint"
)

// program finds one of PostgreSQL's own programs.
func (c *Client) program(name string) (string, error) {
	for _, dir := range filepath.SplitList(c.path) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); filepath.IsAbs(dir) && err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return path, nil
		}
	}
	return "", hint.Add(fmt.Errorf("no snapshot, no rollback: %s is not in PATH", name), "install postgresql-client of the server's version")
}

var dumpVersion = regexp.MustCompile(`^pg_(?:dump|restore) \(PostgreSQL\) (\d+)`)

// canDump says why no snapshot could be taken.
func (w *work) canDump(ctx context.Context, st *state) error {
	for _, name := range []string{"pg_dump", "pg_restore"} {
		path, err := w.c.program(name)
		if err != nil {
			return err
		}
		said, err := w.c.run(ctx, nil, path, "--version")
		if err != nil {
			return fmt.Errorf("no snapshot, no rollback: %w", err)
		}
		m := dumpVersion.FindStringSubmatch(said)
		if m == nil {
			return fmt.Errorf("no snapshot, no rollback: %s --version says %q", path, firstLine(said))
		}
		if major, err := strconv.Atoi(m[1]); err != nil || major < st.server/10000 {
			return hint.Add(fmt.Errorf("no snapshot, no rollback: %s has version %s, the server %d", path, m[1], st.server/10000),
				"install postgresql-client-%d", st.server/10000)
		}
	}
	var need int64
	err := w.conn.QueryRow(ctx, `SELECT coalesce(sum(pg_table_size(c.oid)), 0)::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^(pg_|information_schema$)'`).Scan(&need)
	if err != nil {
		return fmt.Errorf("size of the database: %w", err)
	}
	return w.c.hasRoom(need)
}

// hasRoom says why the snapshot's folder cannot take the tables of a database. A
// folder that is missing is made later: the one above it counts. A compressed dump
// without indexes is smaller than its tables.
func (c *Client) hasRoom(need int64) error {
	dir := c.dir
	for {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			return fmt.Errorf("no snapshot, no rollback: %s is not a folder", dir)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) || dir == filepath.Dir(dir) {
			return fmt.Errorf("no snapshot, no rollback: %w", err)
		}
		dir = filepath.Dir(dir)
	}
	const mayWrite, mayEnter = 2, 1
	if err := syscall.Access(dir, mayWrite|mayEnter); err != nil {
		return hint.Add(fmt.Errorf("no snapshot, no rollback: %s cannot be written: %w", dir, err), "snapshots: {dir: ...}")
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return fmt.Errorf("no snapshot, no rollback: free space in %s: %w", dir, err)
	}
	if free := int64(disk.Bavail) * int64(disk.Bsize); free < need { //nolint:unconvert // other types elsewhere
		return hint.Add(fmt.Errorf("no snapshot, no rollback: %s has %d MiB left, the tables have %d MiB", dir, free>>20, need>>20), "snapshots: {dir: ...}")
	}
	return nil
}

// takeSnapshot writes a snapshot and sees that it can be read. One of an
// earlier try that was cut off is replaced only by one that is whole.
func (w *work) takeSnapshot(ctx context.Context) error {
	marks, err := w.marks(ctx, w.spec.Tables)
	if err != nil {
		return err
	}
	d, err := w.writeDump(ctx)
	if err != nil {
		return fmt.Errorf("no snapshot, no rollback: %w", err)
	}
	return w.save(ctx, func(m *manifest) { m.Phase, m.Dump, m.Mark = dumped, d, marks })
}

func (w *work) writeDump(ctx context.Context) (*dump, error) {
	pgDump, err := w.c.program("pg_dump")
	if err != nil {
		return nil, err
	}
	pgRestore, err := w.c.program("pg_restore")
	if err != nil {
		return nil, err
	}
	path := w.file(".dump")
	partial := path + ".partial"
	// Made by us, for us alone; pg_dump then writes into it.
	if err := errors.Join(remove(partial), writeFile(partial, nil)); err != nil {
		return nil, err
	}
	err = w.withPassword(func(env []string) error {
		return w.c.seams.do(ctx, "pg_dump", func(ctx context.Context) error {
			_, err := w.c.run(ctx, env, pgDump, "--format=custom", "--no-password", "--lock-wait-timeout="+milliseconds(w.spec.LockTimeout), "--file="+partial)
			return err
		})
	})
	if err != nil {
		return nil, errors.Join(err, remove(partial))
	}
	list, err := w.c.run(ctx, nil, pgRestore, "--list", partial)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the snapshot cannot be read: %w", err), remove(partial))
	}
	if w.spec.Flyway != nil && !regexp.MustCompile(`(?m)TABLE DATA \S+ `+historyTable+` `).MatchString(list) {
		return nil, definite("the snapshot has no %s in it", historyTable)
	}
	d := &dump{Path: path}
	if d.Size, d.SHA256, err = seal(partial); err != nil {
		return nil, err
	}
	return d, w.c.seams.do(ctx, "snapshot", func(context.Context) error { return rename(partial, path) })
}

// intact reports whether a snapshot is still what was written.
func (d *dump) intact() error {
	size, sum, err := seal(d.Path)
	if err == nil && (size != d.Size || sum != d.SHA256) {
		err = errors.New("it is not the file that was written")
	}
	if err != nil {
		return fmt.Errorf("no snapshot, no rollback: %s: %w", d.Path, err)
	}
	return nil
}

// seal waits until a file is on the disk, and returns what tells it from another.
func seal(path string) (size int64, sum string, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, "", err
	}
	h := sha256.New()
	size, err = io.Copy(h, f)
	if err == nil {
		err = f.Sync()
	}
	return size, hex.EncodeToString(h.Sum(nil)), errors.Join(err, f.Close())
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// tidy removes what a crash left of the present attempt.
func (w *work) tidy() error {
	return errors.Join(remove(w.file(".pgpass")), remove(w.file(".dump.partial")))
}

// withPassword gives do the variables by which a program finds the database;
// the password is in a file that is gone after it.
func (w *work) withPassword(do func(env []string) error) error {
	file := w.file(".pgpass")
	if err := os.MkdirAll(w.c.dir, 0o700); err != nil {
		return err
	}
	if err := writeFile(file, []byte(w.addr.passLine())); err != nil {
		return err
	}
	env := append(w.addr.environ(), "PGPASSFILE="+file, "PGAPPNAME="+w.tag(w.op))
	return errors.Join(do(env), remove(file))
}

// run runs one of PostgreSQL's programs, and returns what it wrote.
func (c *Client) run(ctx context.Context, env []string, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append([]string{"PATH=" + c.path, "LC_ALL=C"}, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	group(cmd)
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s: %w", filepath.Base(path), ctx.Err())
	case err != nil:
		var exit *exec.ExitError
		why := fmt.Errorf("%s: %w: %s", filepath.Base(path), err, lastLines(stderr.String()))
		if errors.As(err, &exit) && exit.Exited() {
			return "", &definiteError{why}
		}
		return "", why
	}
	return stdout.String(), nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// lastLines are the last few of a program's words.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > 5 {
		lines = lines[len(lines)-5:]
	}
	for i, l := range lines {
		if len(l) > 300 {
			lines[i] = l[:300] + "..."
		}
	}
	return strings.Join(lines, " | ")
}
