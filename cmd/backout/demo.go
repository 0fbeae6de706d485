package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/locotoki/backout/deploy/demo"
)

// addDemo adds the command that shows the whole loop on this machine.
func (c *commands) addDemo() {
	clause := c.app.Command("demo", "Show the whole loop on this machine: a service breaks, and is backed out. "+
		"Needs a checkout, Docker, docker-compose, Prometheus, Alertmanager and PostgreSQL; `make demo` gets them.")
	once := clause.Flag("once", "End after the last stage; exit 0 only if every stage was seen.").Bool()
	scenario := clause.Flag("scenario", "How the service breaks: "+strings.Join(demo.Scenarios(), ", ")+".").Default("errors").Enum(demo.Scenarios()...)
	c.add(clause, func(ctx context.Context) error {
		dir, err := demo.Dir()
		if err != nil {
			return wrong("make demo, in a checkout", "%w", err)
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		host := c.env("DOCKER_HOST")
		if host == "" {
			host = "unix:///var/run/docker.sock"
		}
		o := demo.Options{Dir: dir, Backout: self, DockerHost: host, Env: c.env, Scenario: *scenario, Out: c.stdout}
		if *once {
			o.Until = demo.LastStage
		}
		err = demo.Run(ctx, o)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, demo.ErrMissing):
			return wrong("make demo, which gets everything that is needed", "%w", err)
		case errors.Is(err, context.Canceled):
			return negative("", "the demo was interrupted before its last stage")
		}
		return negative("", "%w", err)
	})
}
