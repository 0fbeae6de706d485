package compose

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Compose compares a label on the container, config-hash, with the hash of what
// its files say now; versions hash differently, so only the operator's own tool
// can say it. A container with another label is recreated once more by the next
// up -d, with the flag off all the same: so a tool that is missing, slow or wrong
// costs that, and nothing else. The old label must not stay on a copy: where
// someone turns the change back, it would be right again, and the copy would be
// taken for what it is a copy of.

// HashUnknown is the label where nothing could tell the hash. No hash is like it.
const HashUnknown = "unknown"

// hashTimeout bounds the compose tool, a Python program in its first generation.
const hashTimeout = 15 * time.Second

// CLI is the operator's own compose program. It remembers what it answered, by a digest
// of everything it read: looking at a target asks ahead, so that acting on it need not
// wait. It is safe for concurrent use.
type CLI struct {
	Host     string        // the engine's address
	Environ  []string      // PATH, HOME and DOCKER_ variables of it are the program's
	Plugins  []string      // folders of docker's plugins; nil: docker's own
	Patience time.Duration // bounds one question; 0: hashTimeout
	Log      *slog.Logger

	mu      sync.Mutex
	answers map[string]*hashAnswer
	running sync.WaitGroup
	second  atomic.Pointer[[]string] // the tool of the second generation, once found
}

// Wait waits for the questions that run in the background.
func (c *CLI) Wait() { c.running.Wait() }

func (c *CLI) bound() time.Duration { return cmp.Or(c.Patience, hashTimeout) }

type hashAnswer struct {
	done chan struct{}
	hash string
	err  error
}

// failed reports whether the tool gave no hash: it is asked again.
func (a *hashAnswer) failed() bool {
	select {
	case <-a.done:
		return a.err != nil
	default:
		return false
	}
}

// maxAnswers bounds the memory; what is dropped is asked again.
const maxAnswers = 32

// HashQuestion is one run of the compose tool.
type HashQuestion struct {
	key string // digest of what it depends on
	Project
	service  string
	profiles []string
	// Assume is NAME=value for a variable whose .env is not written yet, though what was
	// read has it so.
	Assume string
}

// With is the same question, with another value of a variable than the files give.
func (q HashQuestion) With(name, value string) HashQuestion {
	q.Assume = name + "=" + value
	q.key += " " + q.Assume
	return q
}

// ask runs the tool in the background, once for a key, and returns its answer-to-be.
func (c *CLI) ask(q HashQuestion) *hashAnswer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := c.answers[q.key]; ok && !a.failed() {
		return a
	}
	if c.answers == nil || len(c.answers) >= maxAnswers {
		c.answers = map[string]*hashAnswer{}
	}
	a := &hashAnswer{done: make(chan struct{})}
	c.answers[q.key] = a
	c.running.Go(func() {
		defer close(a.done)
		ctx, cancel := context.WithTimeout(context.Background(), c.bound())
		defer cancel()
		a.hash, a.err = c.runHash(ctx, q)
	})
	return a
}

// Prefetch asks ahead.
func (c *CLI) Prefetch(q HashQuestion) { c.ask(q) }

// Hash waits for the tool.
func (c *CLI) Hash(ctx context.Context, q HashQuestion) (string, error) {
	a := c.ask(q)
	select {
	case <-a.done:
		return a.hash, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// ConfigHash waits for the tool; "" where it does not tell.
func (c *CLI) ConfigHash(ctx context.Context, q HashQuestion) string {
	hash, err := c.Hash(ctx, q)
	if err != nil && ctx.Err() == nil {
		c.Log.Warn("compose tool gave no config hash; the next up -d recreates once more", "service", q.service, "err", err)
	}
	return hash
}

func (c *CLI) runHash(ctx context.Context, q HashQuestion) (string, error) {
	var out strings.Builder
	if err := c.Run(ctx, q.Project, q.profiles, q.Assume, &out, "config", "--hash", q.service); err != nil {
		return "", fmt.Errorf("docker compose config --hash: %w", err)
	}
	for line := range strings.Lines(out.String()) {
		if name, hash, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == q.service && len(hash) == 64 {
			return hash, nil
		}
	}
	return "", errors.New("docker compose config --hash: no hash in its answer")
}

// Run runs the program for a project, with a variable set (NAME=value; "": none) and its
// output going to out (nil: nowhere).
func (c *CLI) Run(ctx context.Context, p Project, profiles []string, assume string, out *strings.Builder, args ...string) error {
	argv, err := c.Find(ctx, p)
	if err != nil {
		return err
	}
	argv = append(argv, p.arguments()...)
	for _, profile := range profiles {
		argv = append(argv, "--profile", profile)
	}
	return c.command(ctx, p.Dir, append(argv, args...), assume, out)
}

// arguments are what makes the tool mean the project as its containers know it.
func (p Project) arguments() []string {
	argv := []string{"-p", p.name}
	if len(p.EnvFiles) > 1 || p.EnvFiles[0] != filepath.Join(p.Dir, ".env") {
		for _, f := range p.EnvFiles {
			argv = append(argv, "--env-file", f)
		}
	}
	if p.Explicit {
		argv = append(argv, "--project-directory", p.Dir)
		for _, f := range p.Files {
			argv = append(argv, "-f", f)
		}
	}
	return argv
}

// Find returns the program of the generation that made the container.
func (c *CLI) Find(ctx context.Context, p Project) ([]string, error) {
	if p.FirstGeneration() {
		if path := c.lookPath("docker-compose"); path != "" {
			return []string{path}, nil
		}
		return nil, errors.New("no compose tool of the first generation on PATH (docker-compose)")
	}
	if known := c.second.Load(); known != nil {
		if _, err := os.Stat((*known)[0]); err == nil {
			return slices.Clone(*known), nil
		}
	}
	for _, argv := range c.seconds() {
		if c.isSecond(ctx, argv) {
			c.second.Store(&argv)
			return slices.Clone(argv), nil
		}
	}
	return nil, errors.New("no compose tool of the second generation (docker-compose, or docker's plugin compose)")
}

// pluginFolders are where docker looks for its plugins, behind the user's own.
var pluginFolders = []string{
	"/usr/local/lib/docker/cli-plugins", "/usr/local/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins", "/usr/libexec/docker/cli-plugins",
}

// seconds are what may be a tool of the second generation. docker's plugin is run
// itself where it is found: docker between it and us might outlive us, or it docker.
func (c *CLI) seconds() (all [][]string) {
	folders := c.Plugins
	if folders == nil {
		folders = pluginFolders
	}
	if home := c.setTo("HOME"); home != "" {
		folders = slices.Insert(slices.Clone(folders), 0, filepath.Join(home, ".docker", "cli-plugins"))
	}
	for _, dir := range folders {
		if path := filepath.Join(dir, "docker-compose"); runs(path) {
			all = append(all, []string{path})
		}
	}
	if path := c.lookPath("docker-compose"); path != "" {
		all = append(all, []string{path})
	}
	if path := c.lookPath("docker"); path != "" {
		all = append(all, []string{path, "compose"})
	}
	return all
}

// isSecond asks a tool for its version: docker may have no plugin, and docker-compose
// may be of the first generation.
func (c *CLI) isSecond(ctx context.Context, argv []string) bool {
	ctx, cancel := context.WithTimeout(ctx, c.bound())
	defer cancel()
	var out strings.Builder
	err := c.command(ctx, "/", append(slices.Clone(argv), "version", "--short"), "", &out)
	return err == nil && !strings.HasPrefix(out.String(), "1.")
}

func (c *CLI) lookPath(name string) string {
	for _, dir := range filepath.SplitList(c.setTo("PATH")) {
		if path := filepath.Join(dir, name); filepath.IsAbs(dir) && runs(path) {
			return path
		}
	}
	return ""
}

// setTo is the value of a variable of our own environment.
func (c *CLI) setTo(name string) string {
	for _, kv := range c.Environ {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// runs reports whether a file can be run.
func runs(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// Ended tells that the tool ended by itself.
func Ended(ctx context.Context, err error) bool {
	var exit *exec.ExitError
	return ctx.Err() == nil && errors.As(err, &exit) && exit.Exited()
}

// command runs the compose tool, which dies with this process, and with all that it
// started where ctx ends.
func (c *CLI) command(ctx context.Context, dir string, argv []string, assume string, out *strings.Builder) error {
	// The kernel kills the child with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	for _, kv := range c.Environ {
		switch k, _, _ := strings.Cut(kv, "="); {
		case k == "DOCKER_HOST", k == "DOCKER_CONTEXT": // the engine is the configuration's
		case k == "PATH", k == "HOME", strings.HasPrefix(k, "DOCKER_"):
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "DOCKER_HOST="+c.Host)
	if assume != "" {
		cmd.Env = append(cmd.Env, assume)
	}
	if out != nil {
		cmd.Stdout = out
	}
	// What it writes to stderr may hold values of .env: it is not kept.
	return cmd.Run()
}
