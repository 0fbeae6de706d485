package docker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
)

// labelPreflight marks a container that is started aside to see whether it works;
// its value names the service. It has no other label, so that neither compose nor a
// proxy that goes by labels takes it for one of the service's own.
const labelPreflight = "backout.preflight"

// removeTimeout bounds the creation of a container that is started aside, and its
// removal; neither is given up when the proof is.
const removeTimeout = 30 * time.Second

func asideKey(t alerts.ComposeTarget) string { return path.Join(t.ProjectDir, t.Project, t.Service) }

// sweep removes what a process that was killed in the midst of a proof left behind.
func (c *Client) sweep(ctx context.Context, t alerts.ComposeTarget) error {
	if err := c.Agree(ctx); err != nil {
		return err
	}
	list, err := c.API.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", labelPreflight+"="+asideKey(t))),
	})
	if err != nil {
		return fmt.Errorf("list preflight containers: %w", err)
	}
	for _, s := range list {
		if err := c.removeAside(ctx, s.ID); err != nil {
			return err
		}
	}
	return nil
}

// removeAside takes the anonymous volumes along, which are the container's alone.
func (c *Client) removeAside(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	err := c.API.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !movedOn(err) {
		return hint.Add(fmt.Errorf("remove preflight container %s: %w", compose.ShortImage(id), err), "docker rm -fv %s", compose.ShortImage(id))
	}
	return nil
}

// aside is a container that is started next to a service's own, to see whether it
// works: on the service's networks but without its names there, without published
// ports, with its volumes read-only.
type aside struct {
	c      *Client
	target alerts.Target
	image  string // by id; "": what the service runs
	edit   func(*container.Config)
	// check is what it must show, by the service's own addresses.
	check fleet.Check
	// defined is the service, once blueprint has read it.
	defined compose.Definition
}

// run starts it, waits until it is seen to work, and removes it. seen says what it
// was asked.
func (a aside) run(ctx context.Context) (seen string, f remediation.Result) {
	f = remediation.ResultOf(doubtful(ctx, a.c.sweep(ctx, a.target.Compose)))
	if f.Status != remediation.Pass {
		return "", f
	}
	like, bp, err := a.blueprint(ctx)
	if errors.Is(err, fleet.ErrAbsent) {
		f = remediation.ResultOf(err)
		f.Status = remediation.CannotTell
		return "", f
	}
	if err != nil {
		return "", remediation.ResultOf(doubtful(ctx, err))
	}
	if byTool := toolFor(a.defined, writes{}); byTool != nil {
		return "", remediation.Unknown("the service has "+strings.Join(byTool.hidden, ", ")+", which a test container would not have", "start one by hand, and sign it off")
	}
	if mode := bp.host.NetworkMode; mode.IsHost() || mode.IsContainer() || mode.IsNone() {
		return "", remediation.Unknown("the service has network_mode: "+string(mode)+", so no test container can run next to it", "try it by hand, and sign it off")
	}
	id, err := a.create(ctx, bp)
	if id != "" {
		defer func() {
			if rerr := a.c.removeAside(ctx, id); rerr != nil {
				f = remediation.ResultOf(rerr)
			}
		}()
	}
	if err == nil {
		err = a.c.API.ContainerStart(ctx, id, container.StartOptions{})
	}
	if err != nil {
		return "", remediation.ResultOf(doubtful(ctx, fmt.Errorf("start a preflight container: %w", err)))
	}
	return a.watch(ctx, id, like, bp.config.Image)
}

// blueprint is the service's own container, less all that only one can have.
func (a *aside) blueprint(ctx context.Context) (*fleet.Replica, blueprint, error) {
	f, err := a.c.FoundWhole(ctx, a.target.Compose)
	if err != nil {
		return nil, blueprint{}, err
	}
	var like *fleet.Replica
	for _, r := range f.Members() {
		if like == nil || r.Running() && !like.Running() {
			like = r
		}
	}
	img, err := a.c.API.ImageInspect(ctx, like.Image)
	if err != nil {
		return nil, blueprint{}, fmt.Errorf("inspect image %s: %w", like.Image, err)
	}
	defaults := img.Config
	if defaults == nil {
		defaults = &dockerspec.DockerOCIImageConfig{}
	}
	d, err := f.Definition()
	if err != nil {
		return nil, blueprint{}, err
	}
	a.defined = d
	bp := blueprintOf(like, defaults, d.Sets)
	bp.config.Image = like.Image
	if a.image != "" {
		bp.config.Image = a.image
	}
	if bp.config.Labels, err = a.labels(ctx, bp.config.Image); err != nil {
		return nil, blueprint{}, err
	}
	bp.config.Hostname, bp.config.Domainname = "", ""
	bp.host.PortBindings, bp.host.PublishAllPorts, bp.host.Links = nil, false, nil
	bp.host.RestartPolicy, bp.host.AutoRemove = container.RestartPolicy{Name: container.RestartPolicyDisabled}, false
	// Anonymous volumes are new ones; what has a name is the service's own.
	bp.host.Binds, bp.host.Mounts = slices.Clone(like.HostConfig.Binds), slices.Clone(like.HostConfig.Mounts)
	for i, b := range bp.host.Binds {
		bp.host.Binds[i] = readOnly(b)
	}
	for i := range bp.host.Mounts {
		if m := &bp.host.Mounts[i]; m.Source != "" {
			m.ReadOnly = true
		}
	}
	bp.host.VolumesFrom = slices.Clone(like.HostConfig.VolumesFrom)
	for i, from := range bp.host.VolumesFrom {
		bp.host.VolumesFrom[i] = strings.TrimSuffix(strings.TrimSuffix(from, ":rw"), ":ro") + ":ro"
	}
	for name := range bp.networks {
		bp.networks[name] = &network.EndpointSettings{}
	}
	if a.edit != nil {
		a.edit(bp.config)
	}
	return like, bp, nil
}

// labels are those of what is started aside: what finds it again, and no part of
// the image's, by which a proxy might send it traffic.
func (a aside) labels(ctx context.Context, image string) (map[string]string, error) {
	img, err := a.c.API.ImageInspect(ctx, image)
	if err != nil {
		return nil, fmt.Errorf("inspect image %s: %w", image, err)
	}
	out := map[string]string{}
	if img.Config != nil {
		for k := range img.Config.Labels {
			out[k] = ""
		}
	}
	out[labelPreflight] = asideKey(a.target.Compose)
	return out, nil
}

// readOnly makes a bind (source:target[:options]) read-only.
func readOnly(bind string) string {
	parts := strings.SplitN(bind, ":", 3)
	if len(parts) < 2 {
		return bind
	}
	options := []string{"ro"}
	if len(parts) == 3 {
		for _, o := range strings.Split(parts[2], ",") {
			// z and Z would give the folder another label of SELinux, for good.
			if o != "ro" && o != "rw" && o != "z" && o != "Z" {
				options = append(options, o)
			}
		}
	}
	return parts[0] + ":" + parts[1] + ":" + strings.Join(options, ",")
}

// create gives it a name that nothing else has.
func (a aside) create(ctx context.Context, bp blueprint) (id string, err error) {
	var random [4]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", err
	}
	name := a.target.Compose.Service + "_backout_preflight_" + hex.EncodeToString(random[:])
	var endpoints *network.NetworkingConfig
	first := string(bp.host.NetworkMode)
	if _, ok := bp.networks[first]; ok && bp.host.NetworkMode.IsUserDefined() {
		endpoints = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{first: bp.networks[first]}}
	}
	// Not cut off: what the engine made after that would be nobody's to remove.
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	created, err := a.c.API.ContainerCreate(whole, bp.config, bp.host, endpoints, nil, name)
	if err != nil { // the engine may have made it all the same
		return "", errors.Join(err, a.c.removeAside(ctx, name))
	}
	in, err := a.c.API.ContainerInspect(ctx, created.ID)
	if err != nil {
		return created.ID, err
	}
	for name, e := range bp.networks {
		if _, has := in.NetworkSettings.Networks[name]; has {
			continue
		}
		if err := a.c.API.NetworkConnect(ctx, name, created.ID, e); err != nil {
			return created.ID, fmt.Errorf("connect it to network %s: %w", name, err)
		}
	}
	return created.ID, nil
}

// watch waits until it is seen to work.
func (a aside) watch(ctx context.Context, id string, like *fleet.Replica, image string) (seen string, f remediation.Result) {
	in, err := a.c.API.ContainerInspect(ctx, id)
	if err != nil {
		return "", remediation.ResultOf(doubtful(ctx, fmt.Errorf("inspect a preflight container: %w", err)))
	}
	k := a.check
	var own []string // what could not be asked of it
	k.Health = fleet.Translate(a.check.Health, like, in, &own)
	k.Flags = fleet.Translate(a.check.Flags, like, in, &own)
	if k.Version = ""; a.check.Wants != "" {
		k.Version = fleet.Translate(a.check.Version, like, in, &own)
	}
	if err := a.c.Works(ctx, id, k); err != nil {
		return "", a.judge(ctx, id, err, []string{k.Health, k.Flags, k.Version}, like)
	}
	seen = fmt.Sprintf("a test container of image %s works", compose.ShortImage(image)) // not how soon: a sign-off counts for as long as the text is the same
	if len(own) > 0 {
		return seen, remediation.Unknown(seen+", but "+strings.Join(own, " and ")+" is not the container's own address, so it was not checked",
			"name the published port under probe:, or try it by hand")
	}
	return seen, remediation.Passed(seen + ", and was removed")
}

// testName is a name that create gave.
var testName = regexp.MustCompile(`\S+_backout_preflight_[0-9a-f]{8}`)

// nameless leaves out of a text what only this test container had, and no next one has: its
// id, name and address. A sign-off counts for as long as the text is the same.
func (a aside) nameless(text, id string, addresses []string) string {
	text = testName.ReplaceAllString(strings.ReplaceAll(text, id, "test"), "test")
	for i, own := range []string{a.check.Health, a.check.Flags, a.check.Version} {
		if u, err := url.Parse(addresses[i]); err == nil && addresses[i] != "" && addresses[i] != own {
			text = strings.ReplaceAll(text, u.Host, "the-test-container")
		}
	}
	return text
}

// judge tells a container that does not work from one that could not be asked, or
// could not write. addresses are its own; the first is that of its health.
func (a aside) judge(ctx context.Context, id string, err error, addresses []string, like *fleet.Replica) remediation.Result {
	if ctx.Err() != nil {
		return remediation.ResultOf(ctx.Err())
	}
	f := remediation.ResultOf(fmt.Errorf("started aside: %w", err))
	f.Evidence, f.Next = a.nameless(f.Evidence, id, addresses), "docker run it, and check its log"
	if f.Cause != "" {
		f = f.Because(f.Evidence)
	}
	if !errors.Is(err, fleet.ErrBroken) {
		for _, address := range addresses {
			if address != "" && !fleet.Reachable(ctx, address) {
				return remediation.Unknown(f.Evidence+"; the container's own address cannot be reached from here", "run backout on the engine's machine, or try it by hand")
			}
		}
		if addresses[0] != "" {
			if _, herr := a.c.Probe.Get(ctx, addresses[0]); herr == nil {
				return f // it is well, and does not what it should
			}
		}
	}
	if like.Writes() {
		return remediation.Unknown(f.Evidence+"; it had no write access to the service's volumes, which may be why", "try it by hand, and sign it off")
	}
	return f
}
