package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// What reads the output of a start comes to its end, though the server goes on.
func TestAStartedServerHoldsNoPipe(t *testing.T) {
	for _, name := range []string{"postgres", "engine", "kube"} {
		t.Run(name, func(t *testing.T) {
			// A checkout of its own, so that a server is started.
			checkout := t.TempDir()
			if err := os.Mkdir(filepath.Join(checkout, ".cache"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(filepath.Join(checkout, "deploy/dev"), os.DirFS("../../deploy/dev")); err != nil {
				t.Fatal(err)
			}
			if programs, err := os.ReadFile("../../.cache/engine.env"); err == nil { // where Docker's programs are, if they were fetched
				secretFile(t, filepath.Join(checkout, ".cache/engine.env"), string(programs))
			}
			script := func(ctx context.Context, line string) (string, error) {
				cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", line)
				cmd.Dir = checkout
				cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
					return strings.HasPrefix(v, "BACKOUT_POSTGRES_DSN=") || strings.HasPrefix(v, "BACKOUT_KUBECONFIG=") || strings.HasPrefix(v, "DOCKER_HOST=")
				})
				cmd.WaitDelay = time.Second
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			t.Cleanup(func() {
				if out, err := script(context.Background(), "deploy/dev/"+name+".sh stop"); err != nil {
					t.Errorf("stop: %v: %s", err, out)
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if out, err := script(ctx, "deploy/dev/"+name+".sh start 2>&1 | cat"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if out, err := script(ctx, "deploy/dev/"+name+".sh status"); err != nil {
				t.Errorf("no server: %v: %s", err, out)
			}
		})
	}
}
