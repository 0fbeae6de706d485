package fleet

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/probe"
)

var _ remediation.Runtime = (*Engine)(nil)

// Running implements remediation.Runtime: the engine is asked for the service's
// containers, and each that runs for its version and its flags, by the probe's
// addresses.
func (c *Engine) Running(ctx context.Context, pb *alerts.Playbook) (remediation.Running, error) {
	f, err := c.Found(ctx, pb.Target.Compose)
	if err != nil {
		return remediation.Running{}, err
	}
	members := f.Members()
	words := make([]word, len(members))
	var asking sync.WaitGroup
	for i, r := range members {
		asking.Go(func() { words[i] = c.askReplica(ctx, f, r, pb.Target.Probe) })
	}
	asking.Wait()
	out := remediation.Running{Total: len(members), Seen: time.Now()}
	for i, r := range members {
		if r.up() {
			out.Up++
		}
		out.Replicas = append(out.Replicas, remediation.RunningReplica{
			Name: r.ShortName(), State: r.stands(), Up: r.up(), Image: r.Config.Image, Version: words[i].version,
		})
	}
	// What serves is what counts; where nothing does, what would.
	serving := func(i int) bool { return members[i].Running() || out.Up == 0 }
	out.Image, _ = agreed(members, serving, func(i int) string { return members[i].Config.Image })
	out.Version, _ = agreed(members, serving, func(i int) string { return words[i].version })
	for _, flag := range pb.Flags {
		if flag.Elsewhere() {
			continue
		}
		said := remediation.RunningFlag{Name: flag.Name, Served: true}
		known := false
		value := func(i int) string {
			v, served := words[i].flags[flag.Name]
			if !served {
				had := members[i].Variable(flag.Name)
				v, known = had.Value, known || had.Set
			}
			known, said.Served = known || served, said.Served && served
			return v
		}
		if said.Value, said.Differs = agreed(members, serving, value); known {
			out.Flags = append(out.Flags, said)
		}
	}
	return out, nil
}

// agreed returns what all replicas that serve have, or "" and true where two differ.
func agreed(members []*Replica, serving func(int) bool, of func(int) string) (value string, differs bool) {
	first := true
	for i := range members {
		if !serving(i) {
			continue
		}
		switch v := of(i); {
		case first:
			value, first = v, false
		case v != value:
			differs = true
		}
	}
	if differs {
		return "", true
	}
	return value, false
}

// word is what one replica says of itself.
type word struct {
	version string
	flags   map[string]string
}

// askReplica asks one replica once. What does not answer is left out; the version is then
// the tag of its image.
func (c *Engine) askReplica(ctx context.Context, f *Fleet, r *Replica, p alerts.Probe) word {
	w := word{version: c.taggedVersion(ctx, r)}
	if !r.Running() || r.State.Paused {
		return w
	}
	k := CheckOf(p)
	k.Peers = f.Replicas
	k = c.of(ctx, k, r)
	if k.Version != "" {
		if body, err := c.Probe.Get(ctx, k.Version); err == nil {
			if said, ok := probe.Version(body); ok {
				w.version = said
			}
		}
	}
	if k.Flags != "" {
		if flags, err := c.Probe.Flags(ctx, k.Flags); err == nil {
			w.flags = flags
		}
	}
	return w
}

// taggedVersion is the version that a replica's image has as its tag; of an image that
// runs as latest, the one other tag of its repository. "" where none says.
func (c *Engine) taggedVersion(ctx context.Context, r *Replica) string {
	ref := compose.ParseReference(r.Config.Image)
	if !compose.IsImageID(r.Config.Image) && ref.Tag != "" && ref.Tag != compose.LatestTag {
		return ref.Tag
	}
	img, err := c.API.ImageInspect(ctx, r.Image)
	if err != nil {
		return ""
	}
	var tags []string
	for _, t := range img.RepoTags {
		has := compose.ParseReference(t)
		if has.Tag != compose.LatestTag && !strings.HasPrefix(has.Tag, DisplacedTag) && (compose.IsImageID(r.Config.Image) || has.Repo == ref.Repo) {
			tags = append(tags, has.Tag)
		}
	}
	if tags = slices.Compact(slices.Sorted(slices.Values(tags))); len(tags) == 1 {
		return tags[0]
	}
	return ""
}
