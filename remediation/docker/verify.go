package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// The names of the checks; a smoke check's is its own behind smokePrefix.
const (
	checkImage   = "image"
	checkVersion = "version"
	checkHealth  = "health"
	smokePrefix  = "smoke: "
)

// Verify asks a running service whether it is a version, and whether it works:
// every replica runs image:version, names it at the version address, is healthy and
// was not restarted, and the playbook's smoke checks hold.
// image "" is the compose service's own repository. What does not hold yet is asked
// again within the probe's timeout. The error says why nothing could be asked.
func (c *Client) Verify(ctx context.Context, target alerts.Target, image, version string) ([]remediation.Check, error) {
	f, err := c.found(ctx, target.Compose)
	if err != nil {
		return nil, err
	}
	name, id, err := c.versionOf(ctx, f, image, version)
	if err != nil {
		return nil, err
	}
	return c.checks(ctx, f, target, namedImage{name, id}, version)
}

// checks are those of Verify, for the image that stands for the version.
func (c *Client) checks(ctx context.Context, f *fleet, target alerts.Target, image namedImage, version string) ([]remediation.Check, error) {
	checks := []remediation.Check{f.runs(image)}
	patience := checkOf(target.Probe, "", setting{}).timeout
	deadline := time.Now().Add(patience)
	// Health first: who waits for a service that ended waits for nothing.
	health, broken := c.healthy(ctx, f, target.Probe)
	if broken {
		deadline = time.Now()
	}
	if address := target.Probe.Version; address != "" {
		checks = append(checks, c.insist(ctx, deadline, checkVersion, address+" names "+version, func(ctx context.Context) error {
			for _, r := range f.members() {
				if err := c.namesVersion(ctx, c.ownAddress(ctx, address, r, f.replicas), version); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	checks = append(checks, health)
	for _, s := range target.Probe.Smoke {
		checks = append(checks, c.insist(ctx, deadline, smokePrefix+s.Name, s.URL+" answers as expected", func(ctx context.Context) error {
			return c.smoke(ctx, s)
		}))
	}
	return checks, ctx.Err()
}

// Runs says why not every replica of a service runs image:version, or returns nil;
// image "" is the compose service's own repository.
func (c *Client) Runs(ctx context.Context, target alerts.Target, image, version string) error {
	f, err := c.found(ctx, target.Compose)
	if err != nil {
		return err
	}
	name, id, err := c.versionOf(ctx, f, image, version)
	if err != nil {
		return err
	}
	if check := f.runs(namedImage{name, id}); !check.OK {
		err = errors.New(check.Detail)
	}
	return err
}

// versionOf returns the name and the id ("": there is none) of an image's version;
// image "" is the compose service's own repository.
func (c *Client) versionOf(ctx context.Context, f *fleet, image, version string) (name, id string, err error) {
	if image == "" {
		d, err := c.definitionOf(f)
		if err != nil {
			return "", "", err
		}
		ref, err := d.runs(f)
		if err != nil {
			return "", "", err
		}
		image = ref.repo
	}
	for _, tag := range spellings(version, version) {
		spelled := parseReference(image).repo + ":" + tag
		if id, err = c.imageID(ctx, spelled); err != nil {
			return "", "", err
		}
		if name == "" || id != "" {
			name = spelled
		}
		if id != "" {
			break
		}
	}
	return name, id, nil
}

// spellings are how a version may be written in a tag: with a v before its number or
// without, the way that like has it first.
func spellings(version, like string) []string {
	number := strings.TrimPrefix(version, "v")
	digit := func(s string) bool { return s != "" && s[0] >= '0' && s[0] <= '9' }
	switch {
	case !digit(number):
		return []string{version}
	case digit(like):
		return []string{number, "v" + number}
	case digit(strings.TrimPrefix(like, "v")):
		return []string{"v" + number, number}
	case number == version:
		return []string{number, "v" + number}
	}
	return []string{version, number}
}

// runs checks that every replica runs an image.
func (f *fleet) runs(image namedImage) remediation.Check {
	no := func(err error) remediation.Check { return remediation.Check{Name: checkImage, Detail: err.Error()} }
	if image.id == "" {
		return no(missing(image.name))
	}
	for _, r := range f.members() {
		switch {
		case !r.running():
			return no(r.isDown())
		case r.Image != image.id:
			return no(fmt.Errorf("container %s runs image %s (%s), not %s (%s)", r.name(), r.Config.Image, shortImage(r.Image), image.name, shortImage(image.id)))
		}
	}
	which := "the one container runs"
	if n := len(f.members()); n > 1 {
		which = fmt.Sprintf("all %d containers run", n)
	}
	return remediation.Check{Name: checkImage, OK: true, Detail: fmt.Sprintf("%s %s (%s)", which, image.name, shortImage(image.id))}
}

// isDown says that a replica does not run.
func (r *replica) isDown() error {
	return fmt.Errorf("%w: container %s is %s (exit status %d)", errBroken, r.name(), r.State.Status, r.State.ExitCode)
}

// healthy checks that every replica is up and healthy; broken tells that waiting
// does not cure it.
func (c *Client) healthy(ctx context.Context, f *fleet, p alerts.Probe) (h remediation.Check, broken bool) {
	h.Name = checkHealth
	if down := f.down(); down != nil && !slices.ContainsFunc(f.members(), (*replica).running) {
		h.Detail = fmt.Sprintf("no container of %s is running: %v", f.service, down.isDown())
		return h, true
	}
	k := checkOf(p, "", setting{})
	k.flags, k.version, k.peers = "", "", f.replicas
	for _, r := range f.members() {
		if err := c.works(ctx, r.ID, k); err != nil {
			h.OK, h.Detail = false, err.Error()
			return h, errors.Is(err, errBroken)
		}
		h.OK, h.Detail = true, "up without a restart and healthy"
		if k.health != "" {
			h.Detail = k.health + " answers; " + h.Detail
		}
	}
	return h, false
}

// insist asks until the answer is good or the deadline is over, and once at least.
func (c *Client) insist(ctx context.Context, deadline time.Time, name, good string, ask func(context.Context) error) remediation.Check {
	for {
		err := ask(ctx)
		if err == nil {
			return remediation.Check{Name: name, OK: true, Detail: good}
		}
		if time.Now().After(deadline) || !wait(ctx, probeEvery) {
			return remediation.Check{Name: name, Detail: err.Error()}
		}
	}
}

// namesVersion asks the version address: its answer is the version, as text or as
// JSON with the key version. A v before the number may be left out.
func (c *Client) namesVersion(ctx context.Context, address, version string) error {
	body, err := c.get(ctx, address)
	if err != nil {
		return err
	}
	said, ok := versionIn(body)
	if !ok {
		return fmt.Errorf("%s reports no version: its answer is neither one word nor JSON with the key version", address)
	}
	if strings.TrimPrefix(said, "v") != strings.TrimPrefix(version, "v") {
		return otherwise{fmt.Errorf("%s reports version %q, want %s", address, said, version)}
	}
	return nil
}

// maxVersion is how long a version may be, as a tag may.
const maxVersion = 128

func versionIn(body []byte) (string, bool) {
	body = bytes.TrimSpace(body)
	var object struct {
		Version *string `json:"version"`
	}
	said := string(body)
	if err := json.Unmarshal(body, &object); err == nil && object.Version != nil {
		said = *object.Version
	} else {
		var quoted string
		if json.Unmarshal(body, &quoted) == nil {
			said = quoted
		}
	}
	return said, said != "" && len(said) <= maxVersion && !strings.ContainsAny(said, " \t\r\n{}<>")
}

// Smoke asks one smoke check, once.
func (c *Client) Smoke(ctx context.Context, s alerts.SmokeCheck) error { return c.smoke(ctx, s) }

// smoke asks one smoke check. The answer itself is not told: it is the service's
// data.
func (c *Client) smoke(ctx context.Context, s alerts.SmokeCheck) error {
	status, body, err := c.request(ctx, s.URL)
	if err != nil {
		return err
	}
	want := s.Status
	if want == 0 {
		want = http.StatusOK
	}
	switch {
	case status != want:
		return fmt.Errorf("%s answers %d, want %d", s.URL, status, want)
	case !bytes.Contains(body, []byte(s.Contains)):
		return fmt.Errorf("%s answers %d without %q in it", s.URL, status, s.Contains)
	}
	return nil
}

// versionCheck is what a copy of a version must show: all that Verify asks of it.
func (c *Client) versionCheck(target alerts.Target, version string) check {
	k := checkOf(target.Probe, "", setting{})
	k.wants = version
	k.also = func(ctx context.Context) error {
		for _, s := range target.Probe.Smoke {
			if err := c.smoke(ctx, s); err != nil {
				return fmt.Errorf("%s%s: %w", smokePrefix, s.Name, err)
			}
		}
		return nil
	}
	return k
}

// Verify implements remediation.Action: the same checks as Client.Verify.
func (a *imageRetag) Verify(ctx context.Context, _ string) error {
	return failures(a.c.Verify(ctx, a.target, a.image, a.version))
}

// failures is one error of all checks that failed.
func failures(checks []remediation.Check, err error) error {
	if err != nil {
		return err
	}
	var failed []string
	for _, c := range checks {
		if !c.OK {
			failed = append(failed, c.Name+": "+c.Detail)
		}
	}
	if len(failed) > 0 {
		return errors.New(strings.Join(failed, "; "))
	}
	return nil
}
