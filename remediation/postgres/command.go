package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/trust"
)

// tagVariable is in the environment of a command and of all that it starts.
const tagVariable = "BACKOUT_TAG"

// grace is what a command has to end by itself once its time is over.
const grace = 5 * time.Second

// maxProgram is the largest command or script of it, in bytes.
const maxProgram = 256 << 20

// outputHalf is how much of the beginning and of the end of a command's output
// is kept.
const outputHalf = 32 << 10

// group makes a program end with all that it started.
func group(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
}

// commandFile is the file that the command runs; PATH is not asked.
func (r *rollback) commandFile() string {
	if name := r.spec.Command[0]; filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.spec.Dir, r.spec.Command[0])
}

// readCommand says what is to be run, or why it cannot be.
func (w *work) readCommand() (*commandState, error) {
	file := w.commandFile()
	content, err := trust.ReadFile(file, maxProgram)
	if err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o111 == 0 {
		return nil, errors.Join(hint.Add(fmt.Errorf("command: %s is not executable", file), "chmod +x %s", file), err)
	}
	// A script that an interpreter is given, as in [sh, x.sh], decides as much.
	for _, arg := range w.spec.Command[1:] {
		if !filepath.IsAbs(arg) {
			arg = filepath.Join(w.spec.Dir, arg)
		}
		info, err := os.Stat(arg)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		script, err := trust.ReadFile(arg, maxProgram)
		if err != nil {
			return nil, fmt.Errorf("command: %w", err)
		}
		content = append(content, script...)
	}
	if w.spec.Dir != "" {
		if info, err := os.Stat(w.spec.Dir); err != nil || !info.IsDir() {
			return nil, errors.Join(fmt.Errorf("command: dir %s is not a folder", w.spec.Dir), err)
		}
	}
	sum := sha256.Sum256(content)
	c := &commandState{Dir: w.spec.Dir, SHA256: hex.EncodeToString(sum[:])}
	for _, arg := range w.spec.Command {
		c.Argv = append(c.Argv, w.addr.scrub(arg))
	}
	return c, nil
}

// runCommand runs the playbook's command, once it is noted what the database was
// like before it.
func (w *work) runCommand(ctx context.Context) error {
	// It may have been exchanged while the snapshot was taken.
	if err := w.sameCommand(); err != nil {
		return &definiteError{err}
	}
	before, err := w.countAll(ctx, w.conn)
	if err != nil {
		return err
	}
	if err := w.unwritten(ctx); err != nil {
		return err
	}
	marks := w.m.Mark // still true of all tables, unless a command ran before, or only some were noted
	if w.m.Phase == changing || len(w.spec.Tables) > 0 {
		if marks, err = w.marks(ctx, nil); err != nil {
			return err
		}
	}
	err = w.save(ctx, func(m *manifest) {
		m.Phase, m.Mark, m.Run = changing, marks, &command{Log: w.file(".log")}
		if m.Before == nil {
			m.Before = before
		}
	})
	if err != nil {
		return err
	}
	output := &excerpt{}
	err = w.withPassword(func(env []string) error {
		env = append(env, "BACKOUT_SNAPSHOT="+w.m.Dump.Path)
		return w.c.seams.do(ctx, "command", func(ctx context.Context) error { return w.start(ctx, env, output) })
	})
	said := w.addr.scrub(output.String())
	var exit *exec.ExitError
	var code *int
	if n := 0; err == nil {
		code = &n
	} else if errors.As(err, &exit) && exit.Exited() && ctx.Err() == nil {
		n = exit.ExitCode()
		code = &n
	}
	// What it said is kept even where our own time is over.
	keep, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	kept := errors.Join(writeFile(w.m.Run.Log, []byte(said)), w.save(keep, func(m *manifest) { m.Run = &command{Log: m.Run.Log, Exit: code} }))
	switch {
	case code != nil && *code != 0:
		return errors.Join(definite("command %s: exit status %d: %s (all of it in %s)", w.spec.Command[0], *code, lastLines(said), w.m.Run.Log), kept)
	case err != nil:
		return errors.Join(remediation.InDoubt(fmt.Errorf("command %s: %w: %s (all of it in %s)", w.spec.Command[0], err, lastLines(said), w.m.Run.Log)), kept)
	case kept != nil:
		return kept
	}
	done, err := w.askWanted(ctx)
	if err == nil && !done {
		err = definite("command %s exited without an error, but the query in wanted says that it has not done its work (its output is in %s)", w.spec.Command[0], w.m.Run.Log)
	}
	if err != nil {
		return err
	}
	after, err := w.countAll(ctx, w.conn)
	if err != nil {
		return err
	}
	return w.save(ctx, func(m *manifest) { m.Phase, m.After = changed, after })
}

// start runs the command with an environment of its own, and ends all that it
// started.
func (w *work) start(ctx context.Context, env []string, output *excerpt) error {
	cmd := exec.CommandContext(ctx, w.commandFile(), w.spec.Command[1:]...)
	cmd.Dir = w.spec.Dir
	home := w.spec.Dir
	if home == "" {
		home = "/"
	}
	cmd.Env = append([]string{
		"PATH=" + w.c.path, "HOME=" + home, "LANG=C.UTF-8",
		"PGOPTIONS=-c lock_timeout=" + milliseconds(w.spec.LockTimeout) + " -c statement_timeout=" + milliseconds(w.spec.StatementTimeout),
		tagVariable + "=" + w.tag(w.op), "BACKOUT_OPERATION=" + w.op, "BACKOUT_SERVICE=" + w.spec.Service, "BACKOUT_VERSION=" + w.spec.Version,
	}, env...)
	cmd.Stdout, cmd.Stderr = output, output
	group(cmd)
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left in its group, if anything
	}
	// Nor may a statement of it go on, nor what left the group.
	rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := w.clear(rest); err != nil {
		w.c.logger.Warn("end what a command left", "service", w.spec.Service, "operation", w.op, "err", w.addr.scrubError(err))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// excerpt keeps the beginning and the end of what is written to it.
type excerpt struct {
	mu         sync.Mutex
	head, tail []byte
	lost       int
}

func (e *excerpt) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(p)
	if room := outputHalf - len(e.head); room > 0 {
		take := min(room, len(p))
		e.head, p = append(e.head, p[:take]...), p[take:]
	}
	e.tail = append(e.tail, p...)
	if over := len(e.tail) - outputHalf; over > 0 {
		e.tail = append(e.tail[:0], e.tail[over:]...)
		e.lost += over
	}
	return n, nil
}

func (e *excerpt) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lost == 0 {
		return string(e.head) + string(e.tail)
	}
	head, tail := e.head, e.tail
	// Whole lines, so that half a password is not kept either.
	if i := bytes.LastIndexByte(head, '\n'); i >= 0 {
		head = head[:i]
	}
	if i := bytes.IndexByte(tail, '\n'); i >= 0 {
		tail = tail[i+1:]
	}
	return fmt.Sprintf("%s\n[about %d bytes left out]\n%s", head, e.lost, tail)
}
