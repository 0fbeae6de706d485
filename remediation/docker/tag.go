package docker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
)

func displacedName(repo, id, op string) string {
	return repo + ":" + fleet.DisplacedTag + compose.ShortImage(id) + "-" + shortID(op)
}

func (c *Client) tag(ctx context.Context, id, name string) error {
	err := c.API.ImageTag(ctx, id, name)
	if errdefs.IsNotFound(err) {
		return hint.Add(fmt.Errorf("tag image %s as %s: it is gone from the engine", compose.ShortImage(id), name), "docker pull, or docker load, what it was made from")
	}
	if err != nil {
		return fmt.Errorf("tag image %s as %s: %w", compose.ShortImage(id), name, err)
	}
	return nil
}

// untag takes a name from an image. Where it is the last one, the image is removed,
// unless a container uses it.
func (c *Client) untag(ctx context.Context, name string) error {
	_, err := c.API.ImageRemove(ctx, name, image.RemoveOptions{Force: true})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove tag %s: %w", name, err)
	}
	return nil
}

// displaced is an image that an operation displaced, under the tag that keeps it.
type displaced struct {
	Tag     string `json:"tag"`
	ImageID string `json:"image_id"`
}

// displacedBy returns the images that an operation keeps.
func (c *Client) displacedBy(ctx context.Context, repo, op string) ([]displaced, error) {
	list, err := c.API.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", repo+":"+fleet.DisplacedTag+"*-"+shortID(op)))})
	if err != nil {
		return nil, fmt.Errorf("list images of %s: %w", repo, err)
	}
	var all []displaced
	for _, img := range list {
		if name := displacedName(repo, img.ID, op); slices.ContainsFunc(img.RepoTags, func(t string) bool { return compose.ParseReference(t).String() == name }) {
			all = append(all, displaced{name, img.ID})
		}
	}
	slices.SortFunc(all, func(a, b displaced) int { return strings.Compare(a.Tag, b.Tag) })
	return all, nil
}

// forget takes the tags of an operation that was undone. An image that has no
// other name and that nothing runs keeps its tag: prune would take it.
func (c *Client) forget(ctx context.Context, f *fleet.Fleet, kept []displaced) error {
	for _, d := range kept {
		img, err := c.API.ImageInspect(ctx, d.Tag)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("inspect image %s: %w", d.Tag, err)
		}
		used := slices.ContainsFunc(f.Replicas, func(r *fleet.Replica) bool { return r.Image == d.ImageID })
		if len(img.RepoTags) < 2 && !used {
			continue
		}
		if err := c.untag(ctx, d.Tag); err != nil {
			return err
		}
	}
	return nil
}
