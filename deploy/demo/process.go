package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/locotoki/backout/deploy/kube"
)

// process is a program started by the demo and ended by it. Its output goes to
// a file; it is in a process group of its own, so that a Ctrl-C at the terminal
// reaches only the demo, which then ends it in its turn.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // how it ended
}

// pidsFile lists, one per line, the processes of a demo, so that a next one can
// end what a killed one left.
const pidsFile = "pids"

// start runs a program below dir, its output going to name.log there.
func start(dir, name, path string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.cmd = exec.Command(path, args...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	p.cmd.SysProcAttr = kube.ChildAttributes()
	err = p.cmd.Start()
	if err := errors.Join(err, out.Close()); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := p.remember(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), p.kill())
	}
	return p, nil
}

func (p *process) remember(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, pidsFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, p.cmd.Process.Pid)
	return errors.Join(err, f.Close())
}

// endLeftovers kills the processes that an earlier demo noted in dir and did
// not live to end. A pid may be somebody else's by now: only a command line
// that names dir is ours.
func endLeftovers(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, pidsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, line := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(line)
		if err != nil || pid < 2 {
			continue
		}
		command, err := os.ReadFile(filepath.Join("/proc", line, "cmdline"))
		if err != nil || !bytes.Contains(command, []byte(dir+"/")) {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d of an earlier demo: %w", pid, err)
		}
	}
	return nil
}

// stop asks the process to end, and kills it where it does not within 10s.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(10 * time.Second):
		return p.kill()
	}
}

// kill ends the process with no chance to do anything more.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	<-p.done
	return nil
}

// readyWithin is how long a program may take until it answers.
const readyWithin = 3 * time.Minute

// ready waits until url answers 200.
func (p *process) ready(ctx context.Context, client *http.Client, url string) error {
	err := await(ctx, readyWithin, 50*time.Millisecond, func(ctx context.Context) error {
		select {
		case <-p.done:
			return fatal(fmt.Errorf("it ended: %s", p.cmd.ProcessState))
		default:
		}
		_, err := fetch(ctx, client, url, "")
		return err
	})
	if err != nil {
		return fmt.Errorf("%s is not ready at %s: %w\n%s", p.name, url, err, p.tail())
	}
	return nil
}

// tail returns the end of the process's output.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	if len(lines) > 12 {
		lines = lines[len(lines)-12:]
	}
	return strings.Join(lines, "\n")
}
