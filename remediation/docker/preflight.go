package docker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
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
	if err := c.agree(ctx); err != nil {
		return err
	}
	list, err := c.api.ContainerList(ctx, container.ListOptions{
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
	err := c.api.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if err != nil && !movedOn(err) {
		return hint.Add(fmt.Errorf("remove preflight container %s: %w", shortImage(id), err), "docker rm -fv %s", shortImage(id))
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
	check check
	// defined is the service, once blueprint has read it.
	defined definition
}

// run starts it, waits until it is seen to work, and removes it. seen says what it
// was asked.
func (a aside) run(ctx context.Context) (seen string, f remediation.Result) {
	f = remediation.ResultOf(doubtful(ctx, a.c.sweep(ctx, a.target.Compose)))
	if f.Status != remediation.Pass {
		return "", f
	}
	like, bp, err := a.blueprint(ctx)
	if errors.Is(err, errAbsent) {
		f = remediation.ResultOf(err)
		f.Status = remediation.CannotTell
		return "", f
	}
	if err != nil {
		return "", remediation.ResultOf(doubtful(ctx, err))
	}
	if byTool := a.c.toolFor(a.defined, writes{}); byTool != nil {
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
		err = a.c.api.ContainerStart(ctx, id, container.StartOptions{})
	}
	if err != nil {
		return "", remediation.ResultOf(doubtful(ctx, fmt.Errorf("start a preflight container: %w", err)))
	}
	return a.watch(ctx, id, like, bp.config.Image)
}

// blueprint is the service's own container, less all that only one can have.
func (a *aside) blueprint(ctx context.Context) (*replica, blueprint, error) {
	f, err := a.c.found(ctx, a.target.Compose)
	if err != nil {
		return nil, blueprint{}, err
	}
	var like *replica
	for _, r := range f.members() {
		if like == nil || r.running() && !like.running() {
			like = r
		}
	}
	img, err := a.c.api.ImageInspect(ctx, like.Image)
	if err != nil {
		return nil, blueprint{}, fmt.Errorf("inspect image %s: %w", like.Image, err)
	}
	defaults := img.Config
	if defaults == nil {
		defaults = &dockerspec.DockerOCIImageConfig{}
	}
	d, err := a.c.definitionOf(f)
	if err != nil {
		return nil, blueprint{}, err
	}
	a.defined = d
	bp := blueprintOf(like, defaults, d.sets)
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
	img, err := a.c.api.ImageInspect(ctx, image)
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
	created, err := a.c.api.ContainerCreate(whole, bp.config, bp.host, endpoints, nil, name)
	if err != nil { // the engine may have made it all the same
		return "", errors.Join(err, a.c.removeAside(ctx, name))
	}
	in, err := a.c.api.ContainerInspect(ctx, created.ID)
	if err != nil {
		return created.ID, err
	}
	for name, e := range bp.networks {
		if _, has := in.NetworkSettings.Networks[name]; has {
			continue
		}
		if err := a.c.api.NetworkConnect(ctx, name, created.ID, e); err != nil {
			return created.ID, fmt.Errorf("connect it to network %s: %w", name, err)
		}
	}
	return created.ID, nil
}

// watch waits until it is seen to work.
func (a aside) watch(ctx context.Context, id string, like *replica, image string) (seen string, f remediation.Result) {
	in, err := a.c.api.ContainerInspect(ctx, id)
	if err != nil {
		return "", remediation.ResultOf(doubtful(ctx, fmt.Errorf("inspect a preflight container: %w", err)))
	}
	k := a.check
	var own []string // what could not be asked of it
	k.health = translate(a.check.health, like, in, &own)
	k.flags = translate(a.check.flags, like, in, &own)
	if k.version = ""; a.check.wants != "" {
		k.version = translate(a.check.version, like, in, &own)
	}
	began := time.Now()
	if err := a.c.works(ctx, id, k); err != nil {
		return "", a.judge(ctx, id, err, []string{k.health, k.flags, k.version}, like)
	}
	seen = fmt.Sprintf("a test container of image %s works after %s", shortImage(image), remediation.Span(time.Since(began)))
	if len(own) > 0 {
		return seen, remediation.Unknown(seen+", but "+strings.Join(own, " and ")+" is not the container's own address, so it was not checked",
			"name the published port under probe:, or try it by hand")
	}
	return seen, remediation.Passed(seen + ", and was removed")
}

// judge tells a container that does not work from one that could not be asked, or
// could not write. addresses are its own; the first is that of its health.
func (a aside) judge(ctx context.Context, id string, err error, addresses []string, like *replica) remediation.Result {
	if ctx.Err() != nil {
		return remediation.ResultOf(ctx.Err())
	}
	f := remediation.ResultOf(fmt.Errorf("started aside: %w", err))
	f.Evidence, f.Next = strings.ReplaceAll(f.Evidence, id, shortImage(id)), "docker run it, and check its log"
	if !errors.Is(err, errBroken) {
		for _, address := range addresses {
			if address != "" && !reachable(ctx, address) {
				return remediation.Unknown(f.Evidence+"; the container's own address cannot be reached from here", "run backout on the engine's machine, or try it by hand")
			}
		}
		if addresses[0] != "" {
			if _, herr := a.c.get(ctx, addresses[0]); herr == nil {
				return f // it is well, and does not what it should
			}
		}
	}
	if like.writes() {
		return remediation.Unknown(f.Evidence+"; it had no write access to the service's volumes, which may be why", "try it by hand, and sign it off")
	}
	return f
}

// writes reports whether a container can write into what has a name: a volume, or a
// folder of the machine.
func (r *replica) writes() bool {
	return slices.ContainsFunc(r.Mounts, func(m container.MountPoint) bool {
		named := slices.ContainsFunc(r.HostConfig.Binds, func(b string) bool { return strings.Contains(b, ":"+m.Destination) }) ||
			slices.ContainsFunc(r.HostConfig.Mounts, func(h mount.Mount) bool { return h.Target == m.Destination && h.Source != "" })
		return m.RW && named
	})
}

// reachable reports whether an address's host answers at all: to refuse is an answer.
func reachable(ctx context.Context, address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	conn, err := (&net.Dialer{Timeout: probeAttempt}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	return conn.Close() == nil
}

// translate leads an address of the service to a container that is like one of its
// own: a published port to the port behind it, on the container's own address. Where
// that is unknown, it is "", and the address is added to not.
func translate(address string, like *replica, in container.InspectResponse, not *[]string) string {
	if address == "" {
		return ""
	}
	u, err := url.Parse(address)
	ip := addressOf(in)
	if err != nil || ip == "" {
		*not = append(*not, address)
		return ""
	}
	port := portOf(u)
	inner := behind(port, like)
	if loopback := net.ParseIP(u.Hostname()).IsLoopback() || u.Hostname() == "localhost"; inner == "" && !loopback {
		inner = port // the service's own name: the port is the container's
	}
	if inner == "" {
		*not = append(*not, address)
		return ""
	}
	u.Host = net.JoinHostPort(ip, inner)
	return u.String()
}

// behind is the container's port that is published as port, alone or in a range of
// which the engine picks one; "" where none is.
func behind(port string, like *replica) string {
	sources := []nat.PortMap{like.HostConfig.PortBindings}
	if like.NetworkSettings != nil {
		sources = append(sources, like.NetworkSettings.Ports)
	}
	ranged := ""
	for _, ports := range sources {
		for inner, bindings := range ports {
			for _, b := range bindings {
				switch {
				case inner.Proto() != "tcp":
				case b.HostPort == port:
					return inner.Port()
				case inRange(b.HostPort, port):
					ranged = inner.Port()
				}
			}
		}
	}
	return ranged
}

// inRange reports whether a port is in a range such as 8000-8009.
func inRange(ports, port string) bool {
	n, perr := strconv.ParseUint(port, 10, 16)
	from, to, err := nat.ParsePortRangeToInt(ports)
	return perr == nil && err == nil && int(n) >= from && int(n) <= to
}

// addressOf is a started container's address on its first network.
func addressOf(in container.InspectResponse) string {
	if in.NetworkSettings == nil {
		return ""
	}
	if e := in.NetworkSettings.Networks[string(in.HostConfig.NetworkMode)]; e != nil && e.IPAddress != "" {
		return e.IPAddress
	}
	for _, e := range in.NetworkSettings.Networks {
		if e != nil && e.IPAddress != "" {
			return e.IPAddress
		}
	}
	return ""
}
