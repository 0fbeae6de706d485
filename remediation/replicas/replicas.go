// Package replicas judges a service replica by replica, a pod in Kubernetes or a task in a Swarm: by what its platform
// shows of it, and by its own word. It knows neither platform.
package replicas

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
	"github.com/locotoki/backout/remediation/probe"
)

// Replica is one pod or task.
type Replica struct {
	// RunningReplica is what the platform shows; Version is left out.
	remediation.RunningReplica
	// Why says why it is not up.
	Why string
	// Address is where it is asked, with the probe's port.
	Address func(context.Context) (string, error)
	// Env is what it was started with of a variable.
	Env func(variable string) (value string, set bool)
}

// Service is a service on its platform.
type Service struct {
	Probe  *probe.Client
	Target alerts.Target
	// Kind is what one replica is called: pod.
	Kind string
	// List looks at the service.
	List func(context.Context) (Listed, error)
}

// Listed is a service as its platform shows it.
type Listed struct {
	// Image is what new replicas are to run.
	Image string
	// Wanted is how many replicas there are to be.
	Wanted   int
	Replicas []Replica
}

// complete says how many replicas are missing, or returns nil. In a rollout there may be more.
func (l Listed) complete(kind string) error {
	if n := len(l.Replicas); n < l.Wanted {
		return fmt.Errorf("%d of %s exist", n, remediation.Counted(l.Wanted, kind))
	}
	return nil
}

// defaultPatience is used where the playbook has no probe.timeout.
const defaultPatience = 30 * time.Second

// Patience is how long a replica may take until it is as it should be.
func Patience(p alerts.Probe) time.Duration {
	return cmp.Or(max(time.Duration(p.Timeout), 0), defaultPatience)
}

// Undigested is an image's name without its digest.
func Undigested(image string) string {
	image, _, _ = strings.Cut(image, "@")
	return image
}

// Repository is an image's name without its tag and digest. A colon before a slash belongs to a registry's port.
func Repository(image string) string {
	image = Undigested(image)
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[:i]
	}
	return image
}

// Same compares values, of which there may be none.
func Same(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }

// Insist asks until there is no error or the time given is over. What was seen in the end leaves no doubt; the server's
// silence does, where ask has marked it (jsonhttp.Unseen).
func Insist(ctx context.Context, patience time.Duration, ask func(context.Context) error) error {
	limit, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	answered := false
	for {
		err := ask(limit)
		if err == nil {
			return nil
		}
		answered = answered || limit.Err() == nil
		if last == nil || limit.Err() == nil { // not that the time ended in mid-question
			last = err
		}
		if !jsonhttp.Wait(limit, probe.Every) {
			if ctx.Err() != nil && !answered {
				return remediation.InDoubt(errors.Join(last, ctx.Err()))
			}
			return AsText(last)
		}
	}
}

// AsText keeps an error's text and hint, and hides a time limit that it wraps, unless it is marked as remediation.InDoubt.
func AsText(err error) error {
	if remediation.MarkedInDoubt(err) || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	text, try := hint.Of(err)
	if err = errors.New(text); try != "" {
		err = hint.Add(err, "%s", try)
	}
	return err
}

// Watch looks again and again, and reports what is wrong whenever it was not so before.
func Watch(ctx context.Context, every time.Duration, look func(context.Context) (wrong []string, err error), report func(what string)) error {
	var last []string
	for {
		wrong, err := look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the watch ended
		case err != nil:
			return err
		}
		for _, w := range wrong {
			if !slices.Contains(last, w) {
				report(w)
			}
		}
		if last = wrong; !jsonhttp.Wait(ctx, every) {
			return nil
		}
	}
}

// FlagOff is what a replica, at the address of its port, is asked after a flag was turned off.
func FlagOff(p *probe.Client, target alerts.Target, flag alerts.Flag) func(context.Context, string) error {
	return func(ctx context.Context, address string) error {
		if target.Probe.Flags == "" {
			return nil
		}
		return p.FlagIs(ctx, address+target.Probe.Flags, flag.Name, flag.Off)
	}
}

// Version is what a replica is asked after its image was put back.
func Version(p *probe.Client, target alerts.Target, version string) func(context.Context, string) error {
	return func(ctx context.Context, address string) error {
		if target.Probe.Version == "" {
			return nil
		}
		return p.VersionIs(ctx, address+target.Probe.Version, version)
	}
}

// Smoke is what the service is asked then.
func Smoke(p *probe.Client, target alerts.Target) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, s := range target.Probe.Smoke {
			if err := p.Smoke(ctx, s); err != nil {
				return fmt.Errorf("smoke: %s: %w", s.Name, err)
			}
		}
		return nil
	}
}

// Ask asks one replica for its health, and for what was changed.
func (s *Service) Ask(ctx context.Context, r Replica, answers func(ctx context.Context, address string) error) error {
	err := s.healthy(ctx, r)
	if err != nil {
		return fmt.Errorf("%s %s: health: %w", s.Kind, r.Name, err)
	}
	address, err := r.Address(ctx)
	if err == nil {
		err = answers(ctx, address)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", s.Kind, r.Name, err)
	}
	return nil
}

// Denied asks all replicas that are up once and together for what was changed, and reports
// whether one answers otherwise. No answer denies nothing; the error is one of the platform.
func (s *Service) Denied(ctx context.Context, answers func(ctx context.Context, address string) error) (bool, error) {
	said, err := s.together(ctx, answers)
	return slices.ContainsFunc(said, func(err error) bool { return errors.Is(err, probe.ErrOtherwise) }), err
}

// Serves asks all replicas that are up once and together for what was changed. The error is one
// that probe.Denied reports where a replica answers otherwise; any other says why this was not seen.
func (s *Service) Serves(ctx context.Context, answers func(ctx context.Context, address string) error) error {
	said, err := s.together(ctx, answers)
	if err == nil && len(said) == 0 {
		err = fmt.Errorf("no %s is up", s.Kind)
	}
	if err != nil {
		return err
	}
	return probe.Together(said)
}

// together asks all replicas that are up, and returns the answer of each.
func (s *Service) together(ctx context.Context, answers func(ctx context.Context, address string) error) ([]error, error) {
	seen, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(slices.Clone(seen.Replicas), func(r Replica) bool { return !r.Up })
	said := make([]error, len(all))
	var asking sync.WaitGroup
	for i, r := range all {
		asking.Go(func() {
			address, err := r.Address(ctx)
			if err == nil {
				err = answers(ctx, address)
			}
			if err != nil {
				said[i] = fmt.Errorf("%s %s: %w", s.Kind, r.Name, err)
			}
		})
	}
	asking.Wait()
	return said, nil
}

func (s *Service) healthy(ctx context.Context, r Replica) error {
	if !r.Up {
		return errors.New(r.Why)
	}
	address, err := r.Address(ctx)
	if err == nil {
		_, err = s.Probe.Get(ctx, address+s.Target.Probe.Health)
	}
	return err
}

// Knows checks that each replica lists a flag at the probe's flags path.
func (s *Service) Knows(ctx context.Context, flag string) remediation.Result {
	seen, err := s.List(ctx)
	var asks []func(context.Context) remediation.Result
	for _, r := range seen.Replicas {
		address, aerr := r.Address(ctx)
		if aerr != nil && err == nil {
			err = fmt.Errorf("%s %s: %w", s.Kind, r.Name, aerr)
		}
		asks = append(asks, func(ctx context.Context) remediation.Result {
			return s.Probe.Knows(ctx, address+s.Target.Probe.Flags, flag)
		})
	}
	if err != nil {
		return remediation.ResultOf(jsonhttp.InDoubt(err))
	}
	return remediation.Trial(ctx, asks...)
}

// Runs says why not every replica runs image:version, or why the next one would not, or returns nil; image "" is the
// repository that the service runs from. What was seen is a *remediation.VersionError.
func (s *Service) Runs(ctx context.Context, image, version string) error {
	seen, err := s.List(ctx)
	if err != nil {
		return err
	}
	want := cmp.Or(image, Repository(seen.Image)) + ":" + version
	for _, r := range seen.Replicas {
		if Undigested(r.Image) != want {
			return &remediation.VersionError{Versions: []string{version}, Err: fmt.Errorf("%s %s runs %s, not %s", s.Kind, r.Name, r.Image, want)}
		}
	}
	if next := Undigested(seen.Image); next != want { // a rollout has begun, and no replica of it is there
		return &remediation.VersionError{Versions: []string{version}, Err: fmt.Errorf("the next %s is to run %s, not %s", s.Kind, next, want)}
	}
	return nil
}

// Verify checks that every replica runs image:version, names it at the probe's version path and is up and healthy, that
// there are as many as there are to be, and that the smoke checks pass. What does not hold yet is asked again within the probe's timeout. The error says why nothing
// could be asked.
func (s *Service) Verify(ctx context.Context, image, version string) ([]remediation.Check, error) {
	seen, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var checks []remediation.Check
	deadline := time.Now().Add(Patience(s.Target.Probe))
	add := func(name, good string, ask func(context.Context) error) {
		check := remediation.Check{Name: name, OK: true, Detail: good}
		for {
			err := ask(ctx)
			if err == nil {
				break
			}
			if time.Now().After(deadline) || !jsonhttp.Wait(ctx, probe.Every) {
				check.OK, check.Detail = false, err.Error()
				break
			}
		}
		checks = append(checks, check)
	}
	each := func(ask func(context.Context, Replica) error) func(context.Context) error {
		return func(ctx context.Context) error {
			seen, err := s.List(ctx)
			if err != nil {
				return err
			}
			for _, r := range seen.Replicas {
				if err := ask(ctx, r); err != nil {
					return fmt.Errorf("%s %s: %w", s.Kind, r.Name, err)
				}
			}
			return nil
		}
	}
	add("image", "each "+s.Kind+" runs "+cmp.Or(image, Repository(seen.Image))+":"+version, func(ctx context.Context) error { return s.Runs(ctx, image, version) })
	if path := s.Target.Probe.Version; path != "" {
		add("version", path+" of each "+s.Kind+" names "+version, each(func(ctx context.Context, r Replica) error {
			address, err := r.Address(ctx)
			if err == nil {
				err = s.Probe.VersionIs(ctx, address+path, version)
			}
			return err
		}))
	}
	add("health", s.Target.Probe.Health+" of each "+s.Kind+" answers, and each is up", func(ctx context.Context) error {
		if err := each(s.healthy)(ctx); err != nil {
			return err
		}
		seen, err := s.List(ctx)
		if err == nil {
			err = seen.complete(s.Kind)
		}
		return err
	})
	for _, check := range s.Target.Probe.Smoke {
		add("smoke: "+check.Name, check.URL+" answers as expected", func(ctx context.Context) error { return s.Probe.Smoke(ctx, check) })
	}
	return checks, ctx.Err()
}

// Running asks each replica for its version and its flags.
func (s *Service) Running(ctx context.Context, flags []alerts.Flag) (remediation.Running, error) {
	seen, err := s.List(ctx)
	if err != nil {
		return remediation.Running{}, err
	}
	all := seen.Replicas
	out := remediation.Running{Seen: time.Now(), Replicas: make([]remediation.RunningReplica, len(all))}
	served := make([]map[string]string, len(all))
	var asking sync.WaitGroup
	for i, r := range all {
		asking.Go(func() { out.Replicas[i], served[i] = s.running(ctx, r) })
	}
	asking.Wait()
	images, versions := make([]string, len(all)), make([]string, len(all))
	for i, r := range out.Replicas {
		if r.Up {
			out.Up++
		}
		images[i], versions[i] = r.Image, r.Version
	}
	out.Total = max(seen.Wanted, out.Up)
	out.Image, _ = agreed(images)
	out.Version, _ = agreed(versions)
	for _, flag := range flags {
		if flag.Elsewhere() {
			continue
		}
		said, known := remediation.RunningFlag{Name: flag.Name, Served: true}, false
		values := make([]string, len(all))
		for i, r := range all {
			v, ok := served[i][flag.Name]
			if !ok {
				said.Served = false
				v, ok = r.Env(flag.Name)
			}
			values[i], known = v, known || ok
		}
		if said.Value, said.Differs = agreed(values); known {
			out.Flags = append(out.Flags, said)
		}
	}
	return out, nil
}

// running is what one replica says of itself; its version is the image's tag where it does not answer.
func (s *Service) running(ctx context.Context, r Replica) (out remediation.RunningReplica, flags map[string]string) {
	out = r.RunningReplica
	out.Version = strings.TrimPrefix(strings.TrimPrefix(Undigested(r.Image), Repository(r.Image)), ":")
	address, err := r.Address(ctx)
	if err != nil {
		return out, nil
	}
	if path := s.Target.Probe.Version; path != "" {
		if body, err := s.Probe.Get(ctx, address+path); err == nil {
			if said, ok := probe.Version(body); ok {
				out.Version = said
			}
		}
	}
	if path := s.Target.Probe.Flags; path != "" {
		if all, err := s.Probe.Flags(ctx, address+path); err == nil {
			flags = all
		}
	}
	return out, flags
}

// agreed returns what all values are, or "" and true where two differ.
func agreed(values []string) (value string, differs bool) {
	for i, v := range values {
		if i > 0 && v != value {
			return "", true
		}
		value = v
	}
	return value, false
}
