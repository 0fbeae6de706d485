package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/docker/fleet"
)

// ImageRetag returns the action that moves the latest tag of a compose service's
// image to its previous version, and recreates what runs from it. image "" is the
// compose service's own repository.
//
// Wanted means: latest names the previous image, and every replica runs it and does
// not name another version. A service without a container is refused; a replica that
// ended is replaced, and started. HalfWay means:
// this operation keeps an image that latest names still or did, or a copy of its
// own is not in its place yet. Someone who moves latest to a third image takes the
// service over: the target is Untouched then, and Undo takes back no more than what
// is left of this operation's containers.
//
// The displaced image keeps a tag of its own (displacedTag), made before anything
// else; Undo takes it away as the last thing. The tag is moved before the first
// container is touched, so that a person's docker-compose up -d at any moment ends
// with the previous image.
func (c *Client) ImageRetag(target alerts.Target, image, previous string) (remediation.Action, error) {
	switch {
	case target.Compose.ProjectDir == "" || target.Compose.Service == "":
		return nil, errors.New("target.compose needs project_dir and service")
	case previous == "" || previous == compose.LatestTag || strings.ContainsAny(previous, ":/@ "):
		return nil, hint.Add(fmt.Errorf("previous version %q is not a valid tag", previous), "v1.0.0")
	}
	return &imageRetag{c: c, target: target, image: image, version: previous}, nil
}

type imageRetag struct {
	c              *Client
	target         alerts.Target
	image, version string
}

// imageSnapshot is what an intent records: images, tags and replicas, and nothing
// of an environment.
type imageSnapshot struct {
	Image      string         `json:"image"`              // the tag that is moved
	ImageID    string         `json:"image_id,omitempty"` // what it names; absent: nothing
	Previous   string         `json:"previous"`
	PreviousID string         `json:"previous_id"`
	Displaced  []displaced    `json:"displaced"` // images that lose what names or uses them
	Replicas   []replicaState `json:"replicas"`
	By         string         `json:"by,omitempty"` // byCompose: what recreates them; absent: copies
}

// standing is how a service and its images are now.
type standing struct {
	*fleet.Fleet
	compose.Definition
	snap imageSnapshot
	due  []*fleet.Replica
	left []*fleet.Replica
	kept []displaced // by this operation, so far
	op   string
	// denied: every replica has the image, and one of them is down or names another
	// version.
	denied bool
	// tool recreates the service where copies would lack something; nil: copies do.
	tool   *tool
	byTool remediation.Position
}

// stand looks at the service, found by survey.
func (a *imageRetag) stand(ctx context.Context, op string, survey func(context.Context, alerts.ComposeTarget) (*fleet.Fleet, error)) (standing, error) {
	f, err := survey(ctx, a.target.Compose)
	if err != nil {
		return standing{}, err
	}
	st := standing{Fleet: f, op: op}
	if st.Definition, err = f.Definition(); err != nil {
		return standing{}, err
	}
	repo, err := moves(f, st.Definition, a.image)
	if err != nil {
		return standing{}, err
	}
	st.snap = imageSnapshot{Image: repo + ":" + compose.LatestTag, Previous: repo + ":" + a.version, Displaced: []displaced{}, Replicas: statesOf(f, op)}
	if st.snap.ImageID, err = a.c.ImageID(ctx, st.snap.Image); err != nil {
		return standing{}, err
	}
	if st.snap.PreviousID, err = a.c.ImageID(ctx, st.snap.Previous); err != nil {
		return standing{}, err
	}
	if st.snap.PreviousID == "" {
		return standing{}, fleet.NoImage(st.snap.Previous)
	}
	if st.kept, err = a.c.displacedBy(ctx, repo, op); err != nil {
		return standing{}, err
	}
	st.due, st.left = f.Due(op, runsAnother(st.snap.PreviousID)), f.Leftovers(op)
	if st.tool = toolFor(st.Definition, writes{}); st.tool == nil {
		err = a.c.Refuse(ctx, st.due)
	} else {
		st.byTool, err = st.tool.standsAt(ctx, a.c, f, op, st.snap.ImageID == st.snap.PreviousID || len(st.kept) > 0, runsAnother(st.snap.PreviousID))
	}
	if err != nil {
		return standing{}, err
	}
	st.snap.By = st.tool.named()
	var ids []string
	if st.snap.ImageID != "" && st.snap.ImageID != st.snap.PreviousID {
		ids = append(ids, st.snap.ImageID)
	}
	for _, r := range st.due {
		ids = append(ids, r.Image)
	}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		st.snap.Displaced = append(st.snap.Displaced, displaced{displacedName(repo, id, op), id})
	}
	if len(st.due) == 0 && len(st.left) == 0 {
		st.denied = a.c.deniesVersion(ctx, f, a.target, a.version)
	}
	return st, nil
}

// moves returns the repository whose latest tag the service runs, so that moving
// it changes what the service is made from; or says why it would not. image, where
// it is not "", is the repository that a playbook names.
func moves(f *fleet.Fleet, d compose.Definition, image string) (repo string, err error) {
	_, made := f.Images()
	ref, err := d.Runs(made)
	if err != nil {
		return "", err
	}
	if image != "" && compose.ParseReference(image).Repo != ref.Repo {
		return "", hint.Add(fmt.Errorf("%s runs %s, and not %s, whose latest tag would be moved", d.At(), ref, compose.ParseReference(image).Repo),
			"leave image out of the step, or name the service's own there")
	}
	if ref.Digest != "" || ref.Tag != compose.LatestTag {
		return "", hint.Add(fmt.Errorf("%s names %s, and not %s:%s: moving that tag would not change what the service runs", d.At(), ref, ref.Repo, compose.LatestTag),
			"{action: image_retag, variable: TAG} where it is image: %s:${TAG}, or image: %s:%s there, and docker tag, before the rollout", ref.Repo, ref.Repo, compose.LatestTag)
	}
	if err := d.Pulls(); err != nil {
		return "", err
	}
	for _, r := range f.Replicas {
		if has := compose.ParseReference(r.Config.Image); r.Running() && !compose.IsImageID(r.Config.Image) && has != ref {
			return "", hint.Add(fmt.Errorf("container %s was made from %s, and %s names %s: it is unclear which one the next docker-compose up takes", r.ShortName(), has, d.At(), ref),
				"docker-compose up -d %s", f.Service)
		}
	}
	return ref.Repo, nil
}

// deniesVersion reports whether a replica is down or names another version.
func (c *Client) deniesVersion(ctx context.Context, f *fleet.Fleet, target alerts.Target, version string) bool {
	k := c.VersionCheck(target, version)
	k.Flags = ""
	return f.Down() != nil || c.Denies(ctx, f, k) != nil
}

// runsAnother tells a replica that does not run an image.
func runsAnother(previous string) func(*fleet.Replica) bool {
	return func(r *fleet.Replica) bool { return r.Image != previous }
}

func (st standing) position() remediation.Position {
	now := st.snap.ImageID
	switch {
	case len(st.left) > 0, st.tool != nil && len(st.kept) > 0 && st.byTool == remediation.HalfWay && now == st.snap.PreviousID:
		return remediation.HalfWay
	case now == st.snap.PreviousID && len(st.due) == 0 && !st.denied:
		return remediation.Wanted
	case now == st.snap.PreviousID && len(st.due) == 0:
		if slices.ContainsFunc(st.Replicas, func(r *fleet.Replica) bool { return r.OwnedBy(st.op) }) {
			return remediation.HalfWay
		}
		return remediation.Untouched
	case len(st.kept) > 0 && (now == "" || now == st.snap.PreviousID || keeps(st.kept, now)):
		return remediation.HalfWay
	}
	return remediation.Untouched
}

func keeps(kept []displaced, id string) bool {
	return slices.ContainsFunc(kept, func(d displaced) bool { return d.ImageID == id })
}

// Look implements remediation.Action.
func (a *imageRetag) Look(ctx context.Context, op string) (remediation.Look, error) {
	st, err := a.stand(ctx, op, a.c.FoundBy(op))
	if err != nil {
		return remediation.Look{}, err
	}
	position := st.position()
	if len(st.kept) == 0 {
		err = st.MayBegin(op, position)
	}
	if err != nil {
		return remediation.Look{}, err
	}
	raw, err := json.Marshal(st.snap)
	return remediation.Look{Position: position, Snapshot: raw}, err
}

// Apply implements remediation.Action.
func (a *imageRetag) Apply(ctx context.Context, op string, before json.RawMessage) error {
	survey := a.c.FoundBy(op)
	if len(before) > 0 {
		survey = a.c.Survey // who takes it down in the middle still gets the previous version at the next up
	}
	st, err := a.stand(ctx, op, survey)
	if err == nil {
		err = st.OneFolder()
	}
	if err != nil {
		return doubtful(ctx, err)
	}
	was := st.snap
	if len(before) > 0 {
		if was, err = a.parse(before); err != nil {
			return err
		}
	}
	position := st.position()
	if position == remediation.Wanted {
		return nil
	}
	if err := st.changedSince(was, position); err != nil {
		return err
	}
	for _, d := range st.snap.Displaced {
		if slices.Contains(st.kept, d) {
			continue
		}
		if err := a.c.tag(ctx, d.ImageID, d.Tag); err != nil {
			return doubtful(ctx, err)
		}
	}
	if st.snap.ImageID != was.PreviousID {
		if err := a.c.tag(ctx, was.PreviousID, was.Image); err != nil {
			return doubtful(ctx, err)
		}
	}
	p := a.replacement(op, was)
	p.tool = st.tool
	return p.apply(ctx)
}

func (a *imageRetag) parse(before json.RawMessage) (imageSnapshot, error) {
	var snap imageSnapshot
	if err := json.Unmarshal(before, &snap); err != nil {
		return snap, fmt.Errorf("snapshot of %s: %w", a.target.Compose.Service, err)
	}
	if snap.Image == "" || snap.PreviousID == "" {
		return snap, fmt.Errorf("snapshot of %s names no image", a.target.Compose.Service)
	}
	return snap, nil
}

// changedSince says what someone else changed since a snapshot was taken, so
// that going on would undo their work; or returns nil. What this operation left
// half-way is not a change, and neither are containers that a person recreates then.
func (st standing) changedSince(was imageSnapshot, position remediation.Position) error {
	now := st.snap
	changed := func(format string, args ...any) error {
		return hint.Add(fmt.Errorf(format+"; nothing was changed", args...), "check its present state")
	}
	switch {
	case now.Image != was.Image || now.Previous != was.Previous:
		return changed("service %s named %s and now names %s", st.Service, was.Image, now.Image)
	case now.PreviousID != was.PreviousID:
		return changed("%s was image %s and is now %s", was.Previous, compose.ShortImage(was.PreviousID), compose.ShortImage(now.PreviousID))
	case now.ImageID == was.ImageID:
	case position == remediation.HalfWay && (now.ImageID == "" || now.ImageID == was.PreviousID || keeps(st.kept, now.ImageID)):
	default:
		return changed("someone has moved %s from image %s to %s meanwhile", was.Image, compose.ShortImage(was.ImageID), compose.ShortImage(now.ImageID))
	}
	if position == remediation.HalfWay {
		return nil
	}
	if !sameReplicas(now.Replicas, was.Replicas) {
		return changed("someone has recreated the containers of %s meanwhile", st.Service)
	}
	return nil
}

// replacement is how an operation replaces the replicas that run another image.
func (a *imageRetag) replacement(op string, snap imageSnapshot) *replacement {
	return &replacement{
		c: a.c, op: op, compose: a.target.Compose, check: a.c.VersionCheck(a.target, a.version), were: snap.Replicas, due: runsAnother(snap.PreviousID),
		forward: func(ctx context.Context, f *fleet.Fleet) (change, error) {
			d, err := f.Definition()
			if err != nil {
				return change{}, err
			}
			return a.c.toImage(ctx, f, d, fleet.NamedImage{Name: d.Spec.Image, ID: snap.PreviousID}), nil
		},
		// What runs a third image by now is someone else's.
		differs: func(now *fleet.Replica, was replicaState) bool {
			return now.Image == snap.PreviousID && was.ImageID != snap.PreviousID
		},
		backward: func(ctx context.Context, f *fleet.Fleet, was replicaState) (change, error) {
			to := fleet.NamedImage{Name: was.Image, ID: was.ImageID}
			d, err := f.Definition()
			if err == nil && was.ImageID == snap.ImageID {
				return a.c.toImage(ctx, f, d, to), nil
			}
			// Compose's hash is of what latest names; and going back waits for no file.
			return change{image: to, edit: noteImage(to)}, nil
		},
	}
}

// toImage is the change to another image, as compose would make it: what the
// project's files set stays, and what the old image brought along goes.
func (c *Client) toImage(ctx context.Context, f *fleet.Fleet, d compose.Definition, to fleet.NamedImage) change {
	ids, _ := f.Images()
	return change{image: to, hash: c.cli.ConfigHash(ctx, d.Question(ids, to.ID)), keeps: d.Sets, edit: noteImage(to)}
}

// noteImage names the image in compose's own label, where there is one.
func noteImage(to fleet.NamedImage) func(*fleet.Replica, *container.Config) {
	return func(r *fleet.Replica, config *container.Config) {
		if r.Label(compose.LabelImage) != "" {
			config.Labels[compose.LabelImage] = to.ID
		}
	}
}

// Undo implements remediation.Action.
func (a *imageRetag) Undo(ctx context.Context, op string, before json.RawMessage) error {
	if len(before) == 0 {
		return fmt.Errorf("undo %s: no snapshot", a.target.Compose.Service)
	}
	was, err := a.parse(before)
	if err != nil {
		return err
	}
	return doubtful(ctx, a.undo(ctx, op, was))
}

// Restore implements remediation.Restorer: what was down runs again too, as it was.
func (a *imageRetag) Restore(ctx context.Context, op string, before json.RawMessage) error {
	if len(before) == 0 {
		return fmt.Errorf("restore %s: no snapshot", a.target.Compose.Service)
	}
	was, err := a.parse(before)
	if err != nil {
		return err
	}
	revive(was.Replicas)
	return doubtful(ctx, a.undo(ctx, op, was))
}

func (a *imageRetag) undo(ctx context.Context, op string, was imageSnapshot) error {
	f, err := a.c.Survey(ctx, a.target.Compose)
	if err != nil {
		return err
	}
	now, err := a.c.ImageID(ctx, was.Image)
	if err != nil {
		return err
	}
	kept, err := a.c.displacedBy(ctx, compose.ParseReference(was.Image).Repo, op)
	if err != nil {
		return err
	}
	switch {
	case len(kept) > 0 || f.TouchedBy(op):
	case now == was.PreviousID && was.ImageID != was.PreviousID:
		return hint.Add(fmt.Errorf("%s is image %s, and it is unknown whether backout moved it", was.Image, compose.ShortImage(now)),
			"docker tag %s %s, and docker-compose up -d %s", compose.ShortImage(was.ImageID), was.Image, f.Service)
	default:
		return nil // it never began, or was undone
	}
	p := a.replacement(op, was)
	if p.tool, err = a.c.toolNow(ctx, a.target.Compose, was.By == byCompose, writes{}); err != nil {
		return err
	}
	if now != "" && now != was.PreviousID && now != was.ImageID {
		return p.retract(ctx)
	}
	if err := p.mayRun(ctx); err != nil {
		return err
	}
	switch {
	case now == was.ImageID:
	case was.ImageID == "":
		err = a.c.untag(ctx, was.Image)
	default:
		err = a.c.tag(ctx, was.ImageID, was.Image)
	}
	if err != nil {
		return err
	}
	if err := p.undo(ctx); err != nil {
		return err
	}
	if f, err = a.c.Survey(ctx, a.target.Compose); err != nil {
		return err
	}
	return a.c.forget(ctx, f, kept)
}

// Verify implements remediation.Action: the same checks as Client.Verify.
func (a *imageRetag) Verify(ctx context.Context, _ string) error {
	return failures(a.c.Verify(ctx, a.target, a.image, a.version))
}

// failures is one error of all checks that failed: what was seen says more than that the time ended.
func failures(checks []remediation.Check, err error) error {
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fleet.Unseen(err)
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
	return err
}
