package docker

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// namedBy is how compose files name a service's image.
type namedBy struct {
	image string // as it is after interpolation; "" where it is only built
	pull  string // pull_policy
	path  string // the file that decides
}

// image says how files name a service's image, the later ones over the earlier ones.
func (r composeReader) image(files []string, service string) (namedBy, error) {
	layers, err := r.layers(files, service)
	if err != nil {
		return namedBy{}, err
	}
	if len(layers) == 0 {
		return namedBy{}, fmt.Errorf("service %s is in none of %s", service, strings.Join(files, ", "))
	}
	n := namedBy{path: layers[len(layers)-1].path}
	for _, l := range layers {
		image, err := interpolate(target(&l.Image).Value, r.env)
		if err != nil {
			return namedBy{}, fmt.Errorf("%s: service %s: image: %w", l.path, service, err)
		}
		if image != "" {
			n.image, n.path = image, l.path
		}
		pull, err := interpolate(target(&l.PullPolicy).Value, r.env)
		if err != nil {
			return namedBy{}, fmt.Errorf("%s: service %s: pull_policy: %w", l.path, service, err)
		}
		if pull != "" {
			n.pull = pull
		}
	}
	return n, nil
}

// reader returns what answers questions about a project whose .env is env, the
// compose files in effect, and a record of everything that is read.
func (c *Client) reader(p project, env []byte) (r composeReader, files []string, read map[string][32]byte) {
	read = map[string][32]byte{p.envPath: sha256.Sum256(env)}
	files = slices.Clone(p.files)
	if p.override != "" && c.there(p.override) {
		files = append(files, p.override)
	}
	return composeReader{env: environment(env), read: func(path string) ([]byte, error) {
		data, err := c.readProjectFile(path)
		if path == p.envPath {
			data, err = env, nil
		}
		read[path] = sha256.Sum256(data)
		return data, err
	}}, files, read
}

// definition is what a project's files say of one service now.
type definition struct {
	project
	namedBy
	reader composeReader
	files  []string
	read   map[string][32]byte
}

func (c *Client) definitionOf(f *fleet) (definition, error) {
	p, err := c.locate(f)
	if err != nil {
		return definition{}, err
	}
	env, _, err := c.readOptional(p.envPath)
	if err != nil {
		return definition{}, err
	}
	return c.definitionWith(f, p, env)
}

// definitionWith is the definition as it would be with another env file.
func (c *Client) definitionWith(f *fleet, p project, env []byte) (definition, error) {
	var err error
	d := definition{project: p}
	d.reader, d.files, d.read = c.reader(p, env)
	d.namedBy, err = d.reader.image(d.files, f.service)
	return d, err
}

// question asks compose for its hash of the service as the files are, while its
// image's name stands for id.
func (d definition) question(f *fleet, id string) hashQuestion {
	q := d.ask(f, d.read)
	q.key += " " + id
	return q
}

// sets tells whether the service's files set a variable themselves.
func (d definition) sets(f *fleet) func(name string) bool {
	return func(name string) bool {
		s, _, err := d.reader.variable(d.files, f.service, name)
		return err == nil && s.set
	}
}

// runs returns the image that a service's files name; where they only build one,
// that is what its containers were made from.
func (d definition) runs(f *fleet) (reference, error) {
	name := d.image
	for _, r := range f.replicas {
		if name == "" && !byID(r.Config.Image) {
			name = r.Config.Image
		}
	}
	switch {
	case name != "" && (!plainImage.MatchString(name) || strings.Contains(name, "..")):
		return reference{}, fmt.Errorf("%s: service %s: image %q is not an image's name", d.path, f.service, name)
	case name != "":
		return parseReference(name), nil
	}
	return reference{}, fmt.Errorf("%s: service %s names no image; try: image: %s", d.path, f.service, f.service)
}

// plainImage is what may go into a call's address.
var plainImage = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@/-]*$`)

// byID tells an image that is not given by its name.
func byID(image string) bool { return strings.HasPrefix(image, "sha256:") }

// moves returns the repository whose latest tag the service runs, so that moving
// it changes what the service is made from; or says why it would not. image, where
// it is not "", is the repository that a playbook names.
func (d definition) moves(f *fleet, image string) (repo string, err error) {
	ref, err := d.runs(f)
	if err != nil {
		return "", err
	}
	at := fmt.Sprintf("%s: service %s", d.path, f.service)
	if image != "" && parseReference(image).repo != ref.repo {
		return "", fmt.Errorf("%s runs %s, and not %s, whose latest tag would be moved; try: leave image out of the step, or name the service's own there",
			at, ref, parseReference(image).repo)
	}
	if ref.digest != "" || ref.tag != latestTag {
		return "", fmt.Errorf("%s names %s, and not %s:%s: moving that tag would not change what the service runs; try: {action: image_retag, variable: TAG} where it is image: %s:${TAG}, or image: %s:%s there, and docker tag, before the rollout",
			at, ref, ref.repo, latestTag, ref.repo, ref.repo, latestTag)
	}
	if err := d.pulls(f); err != nil {
		return "", err
	}
	for _, r := range f.replicas {
		if has := parseReference(r.Config.Image); r.running() && !byID(r.Config.Image) && has != ref {
			return "", fmt.Errorf("container %s was made from %s, and %s names %s: which of them the next docker-compose up takes cannot be told; try: docker-compose up -d %s",
				r.name(), has, at, ref, f.service)
		}
	}
	return ref.repo, nil
}

// pulls refuses a service whose next docker-compose up would replace its image.
func (d definition) pulls(f *fleet) error {
	switch {
	case d.pull == "build", d.pull == "always", d.pull == "daily", d.pull == "weekly", strings.HasPrefix(d.pull, "every_"):
		return fmt.Errorf("%s: service %s has pull_policy: %s, so that the next docker-compose up would replace the image that was put back; try: pull_policy: missing", d.path, f.service, d.pull)
	}
	return nil
}
