package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/locotoki/backout/deploy/kube"
	"github.com/locotoki/backout/hint"
)

// tools are the programs that run next to backout, by path.
type tools struct {
	compose, prometheus, alertmanager string
}

// ErrMissing is wrapped by what is said where a program, the engine or the
// source of the demo's service is not there.
var ErrMissing = errors.New("missing")

// findTools looks in PATH for everything that is needed and reports all that is not there.
func findTools() (tools, error) {
	var t tools
	var errs []error
	find := func(into *string, names ...string) {
		for _, n := range names {
			if p, err := exec.LookPath(n); err == nil {
				*into = p
				return
			}
		}
		errs = append(errs, hint.Add(fmt.Errorf("%w: %s is not in PATH", ErrMissing, names[0]), "make demo, which fetches it, or apt-get install %s", names[0]))
	}
	find(&t.compose, "docker-compose")
	find(&t.prometheus, "prometheus")
	find(&t.alertmanager, "prometheus-alertmanager", "alertmanager")
	return t, errors.Join(errs...)
}

// buildService builds the service for this machine, and returns the program's path.
func (s *stack) buildService(ctx context.Context) (string, error) {
	binary := s.path("social-intel")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", binary, "./deploy/demo/social-intel")
	cmd.Dir = s.source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	cmd.SysProcAttr = kube.ChildAttributes()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build social-intel: %w\n%s", err, bytes.TrimSpace(out))
	}
	return binary, nil
}

// images builds the service's two versions: v2.0.0 is what runs, v1.0.0 what
// it was before. Nothing but the Go toolchain and the engine is needed.
func (s *stack) images(ctx context.Context) error {
	binary, err := s.buildService(ctx)
	if err != nil {
		return err
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	recipe, err := os.ReadFile(filepath.Join(s.source, "deploy", "demo", "social-intel", "Dockerfile"))
	if err != nil {
		return err
	}
	contents := map[string][]byte{"Dockerfile": recipe, "social-intel": program}
	for version, tags := range imageTags(s.image) {
		if err := s.engine.build(ctx, contents, map[string]string{"VERSION": version}, tags...); err != nil {
			return err
		}
	}
	return nil
}

func imageTags(image string) map[string][]string {
	return map[string][]string{
		oldVersion: {image + ":" + oldVersion},
		newVersion: {image + ":" + newVersion, image + ":latest"},
	}
}

// takeImages gives images that another stack has built this stack's names, so
// that what one of them tags does not concern the other.
func (s *stack) takeImages(ctx context.Context, from string) error {
	for version, tags := range imageTags(s.image) {
		for _, tag := range tags {
			if err := s.engine.tag(ctx, from+":"+version, tag); err != nil {
				return err
			}
		}
	}
	return nil
}

// Checkout returns the root of the checkout of backout that contains dir. The
// demo builds social-intel from there.
func Checkout(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "deploy", "demo", "social-intel", "main.go")); err == nil {
			if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
				return at, nil
			}
		}
		if at == filepath.Dir(at) {
			return "", hint.Add(fmt.Errorf("%w: the demo builds its service from source, and %s is not in a checkout of backout", ErrMissing, dir),
				"cd into one, then make demo")
		}
	}
}
