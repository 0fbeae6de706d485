package compose

import (
	"regexp"
	"strings"
)

// LatestTag is the tag that a compose service runs and that is moved.
const LatestTag = "latest"

// ShortImage is an image's id as docker images prints it.
func ShortImage(id string) string {
	_, digits, ok := strings.Cut(id, ":")
	if !ok {
		digits = id
	}
	return digits[:min(12, len(digits))]
}

// Reference is an image's name, taken apart.
type Reference struct{ Repo, Tag, Digest string }

// ParseReference takes a name apart as the engine does: without a tag and a
// digest it means latest, and Docker Hub's own names are the short ones.
func ParseReference(s string) Reference {
	var r Reference
	r.Repo, r.Digest, _ = strings.Cut(s, "@")
	if i := strings.LastIndexByte(r.Repo, ':'); i > strings.LastIndexByte(r.Repo, '/') {
		r.Repo, r.Tag = r.Repo[:i], r.Repo[i+1:]
	}
	if r.Tag == "" && r.Digest == "" {
		r.Tag = LatestTag
	}
	for _, hub := range []string{"docker.io/", "index.docker.io/"} {
		if rest, ok := strings.CutPrefix(r.Repo, hub); ok {
			r.Repo = strings.TrimPrefix(rest, "library/")
		}
	}
	return r
}

func (r Reference) String() string {
	s := r.Repo
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// plainImage is what may go into a call's address.
var plainImage = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@/-]*$`)

// IsImageID reports whether an image is not given by its name.
func IsImageID(image string) bool { return strings.HasPrefix(image, "sha256:") }

// Spellings are how a version may be written in a tag: with a v before its number or
// without, the way that like has it first.
func Spellings(version, like string) []string {
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

// UnlikelyTag is a value that no image has, to see what a variable decides on.
const UnlikelyTag = "0.backout.0"
