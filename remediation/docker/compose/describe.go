package compose

import (
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"

	"github.com/locotoki/backout/alerts/draft"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/docker/projectfile"
)

// Describe returns what the files of a compose project say of one service. No engine is
// asked, and no file outside of dir, an absolute path, is read.
func Describe(dir, service string) (draft.Service, error) {
	logrus.SetOutput(io.Discard) // compose-go warns there, of each variable that is not set
	p, err := Locate(projectfile.Folders{dir}, dir, "", nil)
	if err != nil {
		return draft.Service{}, err
	}
	d, err := p.Define(service, nil)
	if _, ok := d.others[service]; err != nil && len(d.others) > 0 && !ok {
		return draft.Service{}, hint.Add(err, "one of %s", strings.Join(slices.Sorted(maps.Keys(d.others)), ", "))
	}
	if err != nil {
		return draft.Service{}, err
	}
	s := draft.Service{ProjectDir: dir, Name: service, Variables: map[string]string{}, Others: map[string]string{}, Migrations: os.DirFS(dir)}
	for name, value := range d.Values {
		if _, ok := d.Spec.Environment[name]; !ok {
			s.Others[name] = value
		}
	}
	for name, value := range d.Spec.Environment {
		if value != nil {
			s.Variables[name] = *value
		}
	}
	for _, p := range d.Spec.Ports {
		if first, last, _ := strings.Cut(p.Published, "-"); first != "" && p.Protocol != "udp" {
			s.Ports = append(s.Ports, draft.Port{Host: p.HostIP, Published: first, Last: last, Target: p.Target})
		}
	}
	if h := d.Spec.HealthCheck; h != nil && !h.Disable {
		s.Healthcheck, s.HealthcheckTakes = h.Test, takes(h)
	}
	if d.Spec.Image != "" {
		s.Tag = ParseReference(d.Spec.Image).Tag
	}
	s.TagVariable, err = d.TagVariable()
	return s, err
}

// takes is how long after a start a healthcheck's first answer comes at the latest. What it
// leaves out is the engine's default (moby, daemon/health.go).
func takes(h *types.HealthCheckConfig) time.Duration {
	interval, timeout, start := types.Duration(30*time.Second), types.Duration(30*time.Second), types.Duration(0)
	for into, set := range map[*types.Duration]*types.Duration{&interval: h.Interval, &timeout: h.Timeout, &start: h.StartPeriod} {
		if set != nil && *set > 0 {
			*into = *set
		}
	}
	return time.Duration(interval + timeout + start)
}

var (
	imageLine     = regexp.MustCompile(`\bimage:(.*)`)
	imageVariable = regexp.MustCompile(`\$\{?([A-Za-z_][A-Za-z0-9_]*)`)
)

// TagVariable finds the variable that sets the tag of a service's image, by giving each
// one that an image's name has an unlikely value; "" if there is none.
func (d Definition) TagVariable() (string, error) {
	for _, file := range d.Files {
		data, err := d.in.Read(file)
		if err != nil {
			return "", err
		}
		for _, line := range imageLine.FindAllSubmatch(data, -1) {
			for _, m := range imageVariable.FindAllSubmatch(line[1], -1) {
				name := string(m[1])
				path, env, _, err := d.EnvFile(name)
				if err != nil {
					return "", err
				}
				if env, err = projectfile.SetEnv(env, name, UnlikelyTag); err != nil {
					return "", fmt.Errorf("%s: %w", path, err)
				}
				// Without that variable the image's name may not be known at all.
				then, err := d.DefineWith(d.Spec.Name, path, env)
				if err == nil && strings.Contains(ParseReference(then.Spec.Image).Tag, UnlikelyTag) {
					return name, nil
				}
			}
		}
	}
	return "", nil
}
