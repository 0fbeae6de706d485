// Package demo shows backout's whole loop on one machine, with real parts: a
// compose project with a service that breaks, Prometheus with the generated
// rules, Alertmanager, and backout itself as a separate program. The
// end-to-end tests run on the same stack.
//
// All that it makes is below one folder or carries one compose project's
// label. It removes both when it ends; what a killed demo left is removed by
// the next one in that folder. It listens on loopback only.
package demo

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/locotoki/backout/hint"
)

// Options are what a demo needs. All are required.
type Options struct {
	// Dir is the folder to work in; it is removed at the end.
	Dir string
	// Backout is the binary to show.
	Backout string
	// DockerHost is the engine's address, as in $DOCKER_HOST.
	DockerHost string
	// Env reads the environment, which names a PostgreSQL to use.
	Env func(string) string
	// Scenario is one of Scenarios.
	Scenario string
	// Until says when the demo ends.
	Until Until
	Out   io.Writer
}

// Until says when a demo ends.
type Until int

// A demo stays up until its context ends, or ends after the last stage.
const (
	Interrupted Until = iota
	LastStage
)

// cleanUpWithin bounds the end of a demo.
const cleanUpWithin = 2 * time.Minute

// Run shows the loop. It returns nil only if every stage was seen and nothing
// was left behind; the error wraps ErrMissing where something it needs is not
// there, and ErrNotSeen where a stage was not seen.
func Run(ctx context.Context, o Options) (err error) {
	sc, err := scenarioOf(o.Scenario)
	if err != nil {
		return err
	}
	set, versions, err := o.settings(ctx)
	if err != nil {
		return err
	}
	if sc.canary {
		set.book, set.share, set.stages = "canary.yaml", "0", canaryStages
	}
	if sc.kubernetes {
		if set.kubernetes, err = findKubernetes(o.Env); err != nil {
			return err
		}
		set.plan.Actions = set.plan.Actions[:4] // the schema's step is shown by another story
	}
	out := &printer{out: o.Out}
	out.write("A bad rollout and its rollback, on this machine only\n\n")
	s, err := newStack(ctx, set)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpWithin)
		defer cancel()
		if cerr := s.close(ctx); cerr != nil {
			err = errors.Join(err, fmt.Errorf("clean up: %w", cerr))
			return
		}
		out.write("\nStopped everything and removed %s.\n", o.Dir)
	}()
	if err := s.show(ctx, out, versions); err != nil {
		return err
	}
	if err := s.arrive(ctx, out, sc); err != nil {
		return err
	}
	st := &story{scenario: sc, stack: s, out: out, log: &log{stack: s}, within: stageWithin}
	if err := st.tell(ctx); err != nil {
		if ctx.Err() == nil {
			s.tails(out)
		}
		return err
	}
	out.write("\nEvery stage was seen.\n")
	if o.Until == LastStage {
		return out.err
	}
	s.invite(out, sc)
	<-ctx.Done()
	return out.err
}

// versions are those of what was found on this machine.
type versions struct{ engine, database string }

// settings looks for all that a demo needs, and says all that is missing.
func (o Options) settings(ctx context.Context) (settings, versions, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return settings{}, versions{}, err
	}
	tools, terr := findTools()
	source, serr := Checkout(filepath.Dir(dir))
	_, berr := exec.LookPath(o.Backout)
	if berr != nil {
		berr = hint.Add(fmt.Errorf("%w: %w", ErrMissing, berr), "make build")
	}
	engine, eerr := newEngine(o.DockerHost)
	var found versions
	if eerr == nil {
		found.engine, eerr = engine.ping(ctx)
	}
	if eerr != nil {
		eerr = hint.Add(fmt.Errorf("%w: %w", ErrMissing, eerr), "make demo, which starts a private engine, or set DOCKER_HOST")
	}
	db, pg, perr := findCluster(ctx, o.Env)
	found.database = pg
	// Names of its own for each folder, so that two checkouts on one engine stay apart.
	project := fmt.Sprintf("backout-demo-%08x", crc32.ChecksumIEEE([]byte(dir)))
	return settings{
		dir: dir, backout: o.Backout, source: source, engine: engine, cluster: db, tools: tools,
		project: project, image: project + "/social-intel", mode: "act", book: "playbook.yaml", share: "1",
		limits: oneBreach, plan: wholePlan(),
	}, found, errors.Join(terr, serr, berr, eerr, perr)
}

// show starts the stack, telling where each part is.
func (s *stack) show(ctx context.Context, out *printer, found versions) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if s.pods == nil {
		out.part("engine", "Docker "+found.engine+" at "+s.engine.host)
	}
	out.part("database", s.database()+" in PostgreSQL "+found.database+", with the schema of "+newVersion)
	if err := s.showService(ctx, out); err != nil {
		return err
	}
	if err := s.startPrometheus(ctx); err != nil {
		return err
	}
	out.part("Prometheus", s.url("prometheus")+"  with the generated rules")
	if err := s.startAlertmanager(ctx); err != nil {
		return err
	}
	out.part("Alertmanager", s.url("alertmanager")+"  with the generated routes")
	if err := s.startBackout(ctx); err != nil {
		return err
	}
	out.part("backout", s.url("backout")+"  with --mode=act")
	return out.err
}

// showService starts the compose project; pods run since the stack was prepared.
func (s *stack) showService(ctx context.Context, out *printer) error {
	if s.pods != nil {
		replicas, err := s.replicas(ctx)
		if err != nil {
			return err
		}
		out.part("Kubernetes", s.kubernetes.Server+"  an API server with its controllers; pods are local processes")
		out.part("social-intel", fmt.Sprintf("http://%s  one of the Deployment's %d pods, v2.0.0, %s=%s", replicas[0], len(replicas), flagName, s.share))
		out.part("rights", "those of deploy/kubernetes/target in namespace "+s.pods.namespace)
		return nil
	}
	if err := s.images(ctx); err != nil {
		return err
	}
	out.part("images", s.image+":v1.0.0 and :v2.0.0, built from this checkout")
	if err := s.up(ctx); err != nil {
		return err
	}
	out.part("social-intel", s.url("service")+"  v2.0.0, "+flagName+"="+s.share)
	return nil
}

// arrive brings the stack to where a scenario begins.
func (s *stack) arrive(ctx context.Context, out *printer, sc scenario) error {
	if sc.canary {
		out.part("rollout", "not started; its stages are 1%, 10%, 25%, 50% and 100%")
		if err := s.measured(ctx); err != nil {
			return err
		}
		out.write("\n")
		return out.err
	}
	if err := s.declare(ctx); err != nil {
		return err
	}
	out.part("rollout", "v2.0.0, declared at stage alpha")
	if err := s.settled(ctx); err != nil {
		return err
	}
	out.write("\n")
	return out.err
}

// declare records the rollout that the demo is in the middle of.
func (s *stack) declare(ctx context.Context) error {
	_, err := s.command(ctx, "rollout", "start", "--declare", "--stage=alpha", "--reason=the demo's rollout")
	return err
}

// settled waits until there are enough samples to call the service healthy. What
// follows is then the effect of the breach.
func (s *stack) settled(ctx context.Context) error {
	return await(ctx, readyWithin, 200*time.Millisecond, func(ctx context.Context) error {
		for expr, want := range map[string]string{
			`backout:alive`: "1",
			`backout:recovery_value{trigger="error_rate"} < bool 0.001`: "1",
		} {
			if got, _, err := s.query(ctx, expr); err != nil || got != want {
				return errors.Join(fmt.Errorf("%s is %q in Prometheus, not %s", expr, got, want), err)
			}
		}
		return nil
	})
}

// invite says what can be looked at while the demo stays up.
func (s *stack) invite(out *printer, sc scenario) {
	remote := " --url=" + s.url("backout") + " --token-file=" + s.path("demo.token")
	lines := []string{
		"", "The demo keeps running. To look around:",
		"  " + s.url("prometheus") + "/alerts",
		"  " + s.url("alertmanager"),
		"  " + s.url("backout") + "/api/v1/incidents   (user demo, password " + s.token["demo"] + ")",
		"  " + s.backout + " audit list" + remote,
		"  " + s.backout + " incident list" + remote,
	}
	if s.pods == nil {
		lines = append(lines, "  cat "+s.path("project", ".env"))
	}
	if sc.canary {
		lines = append(lines,
			"  "+s.backout+" rollout status"+remote,
			"To repair the service and roll out again (rollout start says what is missing):",
			"  rm "+s.path("project", "breakage", "now.json"),
			"  "+s.backout+" rollout start"+remote,
		)
	}
	for _, line := range append(lines, "Ctrl-C stops everything and removes it.") {
		out.write("%s\n", line)
	}
}

// tails prints the end of each program's output.
func (s *stack) tails(out *printer) {
	for _, p := range []*process{s.serve, s.alertmanager, s.prometheus} {
		if p != nil {
			out.write("\nLast lines of %s's log:\n", p.name)
			out.block(p.tail())
		}
	}
}
