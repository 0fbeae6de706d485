package docker

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
)

// blueprint is what a copy of a container is created from.
type blueprint struct {
	config   *container.Config
	host     *container.HostConfig
	networks map[string]*network.EndpointSettings
}

// blueprintOf takes a container apart. What inspect shows of the image's own
// defaults is subtracted, so that they come from the image again; what the engine
// assigned (address, MAC, host name, short-id alias) is left out; anonymous volumes
// are named, so that the copy gets the same ones. What compose wrote stays, even
// where it wrote the same onto an image that it built.
func blueprintOf(r *fleet.Replica, img *dockerspec.DockerOCIImageConfig, keeps func(name string) bool) blueprint {
	config := *r.Config
	config.Labels = map[string]string{}
	for k, v := range r.Config.Labels {
		if have, ok := img.Labels[k]; !ok || have != v || strings.HasPrefix(k, compose.LabelPrefix) {
			config.Labels[k] = v
		}
	}
	for _, own := range []string{fleet.LabelOperation, fleet.LabelReplaces, fleet.LabelName, fleet.LabelImage} {
		delete(config.Labels, own)
	}
	config.Env = slices.DeleteFunc(slices.Clone(config.Env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(img.Env, kv) && (keeps == nil || !keeps(name))
	})
	config.ExposedPorts = maps.Clone(config.ExposedPorts)
	maps.DeleteFunc(config.ExposedPorts, func(p nat.Port, _ struct{}) bool { _, ok := img.ExposedPorts[string(p)]; return ok })
	config.Volumes = maps.Clone(config.Volumes)
	maps.DeleteFunc(config.Volumes, func(v string, _ struct{}) bool { _, ok := img.Volumes[v]; return ok })
	sameEntrypoint := slices.Equal(config.Entrypoint, img.Entrypoint)
	sameCmd := slices.Equal(config.Cmd, img.Cmd)
	switch {
	case sameEntrypoint && sameCmd:
		config.Entrypoint, config.Cmd = nil, nil
	case sameEntrypoint && len(config.Cmd) > 0:
		config.Entrypoint = nil
	}
	if config.User == img.User {
		config.User = ""
	}
	if config.WorkingDir == img.WorkingDir {
		config.WorkingDir = ""
	}
	if config.StopSignal == img.StopSignal {
		config.StopSignal = ""
	}
	config.Healthcheck = ownHealthcheck(config.Healthcheck, img.Healthcheck)
	if slices.Equal(config.Shell, img.Shell) {
		config.Shell = nil
	}
	config.OnBuild = nil
	if config.Hostname == r.ID[:12] || r.HostConfig.UTSMode.IsHost() {
		config.Hostname = ""
	}

	host := *r.HostConfig
	host.ContainerIDFile = ""
	host.Binds = slices.Clone(host.Binds)
	host.Mounts = slices.Clone(host.Mounts)
	keepAnonymousVolumes(r, &config, &host)
	return blueprint{&config, &host, endpointsOf(r)}
}

// ownHealthcheck is what a container has of its own: the engine fills each part
// that is left out from the image.
func ownHealthcheck(h, img *dockerspec.HealthcheckConfig) *dockerspec.HealthcheckConfig {
	if h == nil || img == nil {
		return h
	}
	own := *h
	if slices.Equal(own.Test, img.Test) {
		own.Test = nil
	}
	for mine, theirs := range map[*time.Duration]time.Duration{
		&own.Interval: img.Interval, &own.Timeout: img.Timeout, &own.StartPeriod: img.StartPeriod, &own.StartInterval: img.StartInterval,
	} {
		if *mine == theirs {
			*mine = 0
		}
	}
	if own.Retries == img.Retries {
		own.Retries = 0
	}
	if reflect.DeepEqual(own, dockerspec.HealthcheckConfig{}) {
		return nil
	}
	return &own
}

// keepAnonymousVolumes names the volumes that only their place in the container
// tells apart.
func keepAnonymousVolumes(r *fleet.Replica, config *container.Config, host *container.HostConfig) {
	for _, m := range r.Mounts {
		if m.Type != mount.TypeVolume || m.Name == "" {
			continue
		}
		named := slices.ContainsFunc(host.Binds, func(b string) bool {
			parts := strings.SplitN(b, ":", 3)
			return len(parts) > 1 && parts[1] == m.Destination
		})
		for i := range host.Mounts {
			if host.Mounts[i].Target == m.Destination {
				if host.Mounts[i].Source == "" {
					host.Mounts[i].Source = m.Name
				}
				named = true
			}
		}
		if named {
			continue
		}
		mode := "rw"
		if !m.RW {
			mode = "ro"
		}
		host.Binds = append(host.Binds, m.Name+":"+m.Destination+":"+mode)
		delete(config.Volumes, m.Destination)
	}
}

// endpointsOf returns a container's networks as they were asked for.
func endpointsOf(r *fleet.Replica) map[string]*network.EndpointSettings {
	out := map[string]*network.EndpointSettings{}
	if r.NetworkSettings == nil {
		return out
	}
	for name, e := range r.NetworkSettings.Networks {
		if e == nil {
			continue
		}
		out[name] = &network.EndpointSettings{
			IPAMConfig: e.IPAMConfig,
			Links:      slices.Clone(e.Links),
			Aliases:    slices.DeleteFunc(slices.Clone(e.Aliases), func(a string) bool { return a == r.ID[:12] }),
			DriverOpts: maps.Clone(e.DriverOpts),
			GwPriority: e.GwPriority,
		}
	}
	return out
}

// setVariable puts name where it stood in env, or at the end; an unset s takes it out.
func setVariable(env []string, name string, s compose.Setting) []string {
	out := make([]string, 0, len(env)+1)
	done := !s.Set
	for _, kv := range env {
		if k, _, _ := strings.Cut(kv, "="); k != name {
			out = append(out, kv)
		} else if !done {
			out = append(out, name+"="+s.Value)
			done = true
		}
	}
	if !done {
		out = append(out, name+"="+s.Value)
	}
	return out
}

// change is how a copy differs from what it is a copy of.
type change struct {
	image fleet.NamedImage // what it runs; by default what its original does
	hash  string           // compose's config-hash, "" where nothing could tell it
	// keeps tells a variable that the service itself sets, though its value is the
	// old image's default too; nil: none.
	keeps   func(name string) bool
	restart container.RestartPolicy
	edit    func(original *fleet.Replica, to *container.Config)
}

// create makes the copy that is to run as name, under a temporary one and not started.
func (c *Client) create(ctx context.Context, op, name string, r *fleet.Replica, ch change) error {
	img, err := c.API.ImageInspect(ctx, r.Image)
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("the image of container %s is gone from the engine (%s), so it cannot be recreated", r.ShortName(), r.Config.Image)
	}
	if err != nil {
		return fmt.Errorf("inspect image %s: %w", r.Image, err)
	}
	defaults := img.Config
	if defaults == nil {
		defaults = &dockerspec.DockerOCIImageConfig{}
	}
	bp := blueprintOf(r, defaults, ch.keeps)
	wanted := ch.image
	if wanted.ID == "" {
		wanted = fleet.NamedImage{Name: r.Config.Image, ID: r.Image}
	}
	if wanted.Name == "" {
		wanted.Name = r.Config.Image
	}
	// The name may mean another image by now; the id does not.
	named, err := c.ImageID(ctx, wanted.Name)
	if err != nil {
		return err
	}
	if bp.config.Image = wanted.Name; named != wanted.ID {
		bp.config.Image = wanted.ID
	}
	bp.host.RestartPolicy = ch.restart
	labels := bp.config.Labels
	labels[fleet.LabelOperation], labels[fleet.LabelReplaces] = op, r.ID
	labels[fleet.LabelName], labels[fleet.LabelImage] = name, r.Image
	if labels[compose.LabelConfigHash] != "" {
		labels[compose.LabelConfigHash] = cmp.Or(ch.hash, compose.HashUnknown)
	}
	if ch.edit != nil {
		ch.edit(r, bp.config)
	}

	var endpoints *network.NetworkingConfig
	for name, e := range bp.networks {
		if primary(r, name) && bp.host.NetworkMode.IsUserDefined() {
			// API 1.41 takes one; the others are connected before the start.
			endpoints = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{name: e}}
		}
	}
	created, err := c.API.ContainerCreate(ctx, bp.config, bp.host, endpoints, nil, tempName(name, op))
	if err != nil {
		return fmt.Errorf("create a copy of container %s: %w", r.ShortName(), err)
	}
	for _, w := range created.Warnings {
		c.log.Warn("engine warned on create", "container", r.ShortName(), "warning", w)
	}
	return nil
}

// primary reports whether a network is the one that the container was created on.
func primary(r *fleet.Replica, name string) bool {
	mode := string(r.HostConfig.NetworkMode)
	if mode == "default" {
		mode = "bridge"
	}
	return name == mode || r.NetworkSettings.Networks[name].NetworkID == mode
}

// connect gives a copy that was not started yet exactly the networks of its original.
func (c *Client) connect(ctx context.Context, original, dup *fleet.Replica) error {
	want := endpointsOf(original)
	for name, e := range want {
		if _, ok := dup.NetworkSettings.Networks[name]; ok {
			continue
		}
		if err := c.API.NetworkConnect(ctx, name, dup.ID, e); err != nil {
			return fmt.Errorf("connect container %s to network %s: %w", dup.ShortName(), name, err)
		}
	}
	for name := range dup.NetworkSettings.Networks {
		if _, ok := want[name]; ok {
			continue
		}
		if err := c.API.NetworkDisconnect(ctx, name, dup.ID, false); err != nil {
			return fmt.Errorf("disconnect container %s from network %s: %w", dup.ShortName(), name, err)
		}
	}
	return nil
}
