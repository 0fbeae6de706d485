package kube

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/locotoki/backout/hint"
)

// Program is the API server's program, which `make kubelab` builds from apiserver/ into .cache/bin.
const Program = "kubelab"

// Server is a process with an API server, etcd and controllers, for a test that has to kill it. Other tests share the one
// that Env leads to. It is ended with the process that started it.
type Server struct {
	dir    string
	cmd    *exec.Cmd
	stderr *tail
}

// StartServer starts a cluster whose data is in dir, and waits until it is ready. If a killed Server left its data there,
// it is the same cluster at the same address.
func StartServer(dir string) (*Server, error) {
	s := &Server{dir: dir}
	return s, s.Start()
}

// Start starts the process again after Kill or Stop.
func (s *Server) Start() error {
	path, err := exec.LookPath(Program)
	if err != nil {
		return hint.Add(fmt.Errorf("%s is not in PATH", Program), "make kubelab, which builds it into .cache/bin")
	}
	s.stderr = &tail{}
	s.cmd = exec.Command(path, s.dir)
	s.cmd.Stderr, s.cmd.SysProcAttr = s.stderr, ChildAttributes()
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", Program, err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		return errors.Join(fmt.Errorf("%s is not ready: %w\n%s", Program, err, s.stderr), s.Kill())
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	return nil
}

// Kubeconfig returns the path of the admin's kubeconfig.
func (s *Server) Kubeconfig() string { return filepath.Join(s.dir, "kubeconfig") }

// Kill ends the process with no chance to do anything more, and waits for its end. Its data and its address stay.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

// Stop asks the process to end, and waits for its end.
func (s *Server) Stop() error { return s.end(syscall.SIGTERM) }

func (s *Server) end(signal os.Signal) error {
	if err := s.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", Program, err)
	}
	var exit *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("end %s: %w", Program, err)
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailBytes = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	if over := len(t.text) - tailBytes; over > 0 {
		t.text = bytes.Clone(t.text[over:])
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
