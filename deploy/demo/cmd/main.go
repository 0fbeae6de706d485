// Command demo shows backout's whole loop on this machine: it breaks a service
// and watches bin/backout roll it back. It is not part of backout; `make demo`
// builds both and starts what they need.
//
// The exit status is 0 if every stage was seen, 1 if one was not, and 2 if the
// arguments are wrong or something the demo needs is missing.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/locotoki/backout/deploy/demo"
	"github.com/locotoki/backout/hint"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal starts the clean-up; a second one ends the program immediately.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run is the program without its process. It returns the exit status.
func run(ctx context.Context, args []string, env func(string) string, stdout, stderr io.Writer) int {
	o := demo.Options{Scenario: "errors", DockerHost: cmp.Or(env("DOCKER_HOST"), "unix:///var/run/docker.sock"), Env: env, Out: stdout}
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolFunc("once", "exit after the last stage", func(string) error { o.Until = demo.LastStage; return nil })
	scenarios := strings.Join(demo.Scenarios(), ", ")
	flags.Func("scenario", "how the service breaks: "+scenarios+" (default errors)", func(name string) error {
		if o.Scenario = name; !slices.Contains(demo.Scenarios(), name) {
			return errors.New("try: one of " + scenarios)
		}
		return nil
	})
	fail := func(status int, err error) int {
		if _, werr := fmt.Fprintf(stderr, "demo: %v\n", err); werr != nil {
			return 2
		}
		return status
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2 // the flag set has said why
	case flags.NArg() > 0:
		return fail(2, hint.Add(fmt.Errorf("unexpected argument %q", flags.Arg(0)), "--help"))
	}
	checkout, err := demo.Checkout(".")
	if err == nil {
		o.Dir, o.Backout = filepath.Join(checkout, ".demo"), filepath.Join(checkout, "bin", "backout")
		err = demo.Run(ctx, o)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, demo.ErrMissing):
		return fail(2, err)
	case errors.Is(err, context.Canceled):
		return fail(1, errors.New("interrupted before the last stage"))
	}
	return fail(1, err)
}
