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

// What reads the output of a start comes to its end, though the server goes on. All servers are started by background in
// private.sh; PostgreSQL costs the least.
func TestAStartedServerHoldsNoPipe(t *testing.T) {
	// A checkout of its own, so that a server is started.
	checkout := t.TempDir()
	if err := os.CopyFS(filepath.Join(checkout, "deploy/dev"), os.DirFS("../../deploy/dev")); err != nil {
		t.Fatal(err)
	}
	programs, err := filepath.Abs("../../.cache/bin")
	if err != nil {
		t.Fatal(err)
	}
	script := func(ctx context.Context, line string) (string, error) {
		cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", line)
		cmd.Dir = checkout
		cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "BACKOUT_POSTGRES_") }),
			"PATH="+programs+":"+os.Getenv("PATH"))
		cmd.WaitDelay = time.Second
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() {
		if out, err := script(context.Background(), "deploy/dev/postgres.sh stop"); err != nil {
			t.Errorf("stop: %v: %s", err, out)
		}
		if out, err := script(context.Background(), "deploy/dev/postgres.sh status"); err == nil {
			t.Errorf("a server is left: %s", out)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if out, err := script(ctx, "deploy/dev/postgres.sh start 2>&1 | cat"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	address, err := script(ctx, "deploy/dev/postgres.sh status")
	if err != nil {
		t.Fatalf("no server: %v: %s", err, address)
	}
	port, err := os.ReadFile(filepath.Join(checkout, ".cache/postgres/port"))
	if err != nil || !strings.Contains(address, "@127.0.0.1:"+strings.TrimSpace(string(port))+"/") {
		t.Errorf("the server at %s is not this folder's: %v", address, err)
	}
}
