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
)

// latestTag is the tag that a compose service runs and that is moved.
const latestTag = "latest"

// displacedTag begins the tag that keeps an image which an operation displaced:
// REPO:backout-displaced-IMAGE-OPERATION, twelve and eight digits. Prune takes no
// image that has a name.
const displacedTag = "backout-displaced-"

func displacedName(repo, id, op string) string {
	return repo + ":" + displacedTag + shortImage(id) + "-" + shortID(op)
}

// shortImage is an image's id as docker images prints it.
func shortImage(id string) string {
	_, digits, ok := strings.Cut(id, ":")
	if !ok {
		digits = id
	}
	return digits[:min(12, len(digits))]
}

// reference is an image's name, taken apart.
type reference struct{ repo, tag, digest string }

// parseReference takes a name apart as the engine does: without a tag and a
// digest it means latest, and Docker Hub's own names are the short ones.
func parseReference(s string) reference {
	var r reference
	r.repo, r.digest, _ = strings.Cut(s, "@")
	if i := strings.LastIndexByte(r.repo, ':'); i > strings.LastIndexByte(r.repo, '/') {
		r.repo, r.tag = r.repo[:i], r.repo[i+1:]
	}
	if r.tag == "" && r.digest == "" {
		r.tag = latestTag
	}
	for _, hub := range []string{"docker.io/", "index.docker.io/"} {
		if rest, ok := strings.CutPrefix(r.repo, hub); ok {
			r.repo = strings.TrimPrefix(rest, "library/")
		}
	}
	return r
}

func (r reference) String() string {
	s := r.repo
	if r.tag != "" {
		s += ":" + r.tag
	}
	if r.digest != "" {
		s += "@" + r.digest
	}
	return s
}

// imageID returns the id of the image that a name or an id stands for, or "".
func (c *Client) imageID(ctx context.Context, name string) (string, error) {
	img, err := c.api.ImageInspect(ctx, name)
	if errdefs.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("inspect image %s: %w", name, err)
	}
	return img.ID, nil
}

func (c *Client) tag(ctx context.Context, id, name string) error {
	err := c.api.ImageTag(ctx, id, name)
	if errdefs.IsNotFound(err) {
		return hint.Add(fmt.Errorf("tag image %s as %s: it is gone from the engine", shortImage(id), name), "docker pull, or docker load, what it was made from")
	}
	if err != nil {
		return fmt.Errorf("tag image %s as %s: %w", shortImage(id), name, err)
	}
	return nil
}

// untag takes a name from an image. Where it is the last one, the image is removed,
// unless a container uses it.
func (c *Client) untag(ctx context.Context, name string) error {
	_, err := c.api.ImageRemove(ctx, name, image.RemoveOptions{Force: true})
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
	list, err := c.api.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", repo+":"+displacedTag+"*-"+shortID(op)))})
	if err != nil {
		return nil, fmt.Errorf("list images of %s: %w", repo, err)
	}
	var all []displaced
	for _, img := range list {
		if name := displacedName(repo, img.ID, op); slices.ContainsFunc(img.RepoTags, func(t string) bool { return parseReference(t).String() == name }) {
			all = append(all, displaced{name, img.ID})
		}
	}
	slices.SortFunc(all, func(a, b displaced) int { return strings.Compare(a.Tag, b.Tag) })
	return all, nil
}

// forget takes the tags of an operation that was undone. An image that has no
// other name and that nothing runs keeps its tag: prune would take it.
func (c *Client) forget(ctx context.Context, f *fleet, kept []displaced) error {
	for _, d := range kept {
		img, err := c.api.ImageInspect(ctx, d.Tag)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("inspect image %s: %w", d.Tag, err)
		}
		used := slices.ContainsFunc(f.replicas, func(r *replica) bool { return r.Image == d.ImageID })
		if len(img.RepoTags) < 2 && !used {
			continue
		}
		if err := c.untag(ctx, d.Tag); err != nil {
			return err
		}
	}
	return nil
}
