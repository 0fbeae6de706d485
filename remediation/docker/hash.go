package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Compose compares a label on the container, config-hash, with the hash of what
// its files say now; versions hash differently, so only the operator's own tool
// can say it. A container with another label is recreated once more by the next
// up -d, with the flag off all the same: so a tool that is missing, slow or wrong
// costs that, and nothing else. The old label must not stay on a copy: where
// someone turns the change back, it would be right again, and the copy would be
// taken for what it is a copy of.

// hashUnknown is the label where nothing could tell the hash. No hash is like it.
const hashUnknown = "unknown"

// hashTimeout bounds the compose tool, a Python program in its first generation.
const hashTimeout = 15 * time.Second

// hashes remembers what the tool answered, by a digest of everything it read:
// looking at a target asks ahead, so that acting on it need not wait.
type hashes struct {
	mu      sync.Mutex
	answers map[string]*hashAnswer
	running sync.WaitGroup
	second  atomic.Pointer[[]string] // the tool of the second generation, once found
}

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

// hashQuestion is one run of the compose tool.
type hashQuestion struct {
	key string // digest of what it depends on
	project
	service  string
	profiles []string
	// assume is NAME=value for a variable whose .env is not written yet.
	assume string
}

// ask runs the tool in the background, once for a key, and returns its answer-to-be.
func (c *Client) ask(q hashQuestion) *hashAnswer {
	h := &c.hashes
	h.mu.Lock()
	defer h.mu.Unlock()
	if a, ok := h.answers[q.key]; ok && !a.failed() {
		return a
	}
	if h.answers == nil || len(h.answers) >= maxAnswers {
		h.answers = map[string]*hashAnswer{}
	}
	a := &hashAnswer{done: make(chan struct{})}
	h.answers[q.key] = a
	h.running.Go(func() {
		defer close(a.done)
		ctx, cancel := context.WithTimeout(context.Background(), c.patience)
		defer cancel()
		a.hash, a.err = c.runHash(ctx, q)
	})
	return a
}

// configHash waits for the tool; "" where it does not tell.
func (c *Client) configHash(ctx context.Context, q hashQuestion) string {
	a := c.ask(q)
	select {
	case <-a.done:
	case <-ctx.Done():
		return ""
	}
	if a.err != nil {
		c.log.Warn("compose tool gave no config hash; the next up -d recreates once more", "service", q.service, "err", a.err)
	}
	return a.hash
}

func (c *Client) runHash(ctx context.Context, q hashQuestion) (string, error) {
	argv, err := c.composeTool(ctx, q.project)
	if err != nil {
		return "", err
	}
	argv = append(argv, q.arguments()...)
	for _, p := range q.profiles {
		argv = append(argv, "--profile", p)
	}
	argv = append(argv, "config", "--hash", q.service)
	var assume []string
	if q.assume != "" {
		assume = []string{q.assume}
	}
	var out strings.Builder
	if err := c.command(ctx, q.dir, argv, assume, &out); err != nil {
		return "", fmt.Errorf("docker compose config --hash: %w", err)
	}
	for line := range strings.Lines(out.String()) {
		if name, hash, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name == q.service && len(hash) == 64 {
			return hash, nil
		}
	}
	return "", errors.New("docker compose config --hash: no hash in its answer")
}

// arguments are what makes the tool mean the project as its containers know it.
func (p project) arguments() []string {
	argv := []string{"-p", p.name}
	if len(p.envFiles) > 1 || p.envFiles[0] != filepath.Join(p.dir, ".env") {
		for _, f := range p.envFiles {
			argv = append(argv, "--env-file", f)
		}
	}
	if p.explicit {
		argv = append(argv, "--project-directory", p.dir)
		for _, f := range p.files {
			argv = append(argv, "-f", f)
		}
	}
	return argv
}

// composeTool returns the tool of the generation that made the container.
func (c *Client) composeTool(ctx context.Context, p project) ([]string, error) {
	if p.first() {
		if path := c.lookPath("docker-compose"); path != "" {
			return []string{path}, nil
		}
		return nil, errors.New("no compose tool of the first generation on PATH (docker-compose)")
	}
	if known := c.hashes.second.Load(); known != nil {
		if _, err := os.Stat((*known)[0]); err == nil {
			return slices.Clone(*known), nil
		}
	}
	for _, argv := range c.seconds() {
		if c.isSecond(ctx, argv) {
			c.hashes.second.Store(&argv)
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
func (c *Client) seconds() (all [][]string) {
	folders := c.plugins
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
func (c *Client) isSecond(ctx context.Context, argv []string) bool {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	var out strings.Builder
	err := c.command(ctx, "/", append(slices.Clone(argv), "version", "--short"), nil, &out)
	return err == nil && !strings.HasPrefix(out.String(), "1.")
}

func (c *Client) lookPath(name string) string {
	for _, dir := range filepath.SplitList(c.setTo("PATH")) {
		if path := filepath.Join(dir, name); filepath.IsAbs(dir) && runs(path) {
			return path
		}
	}
	return ""
}

// setTo is the value of a variable of our own environment.
func (c *Client) setTo(name string) string {
	for _, kv := range c.environ {
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
