package swarm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/replicas"
)

// field is one value of a service that an operation changes.
type field interface {
	// name is the field as people are told, key as the mark has it.
	name() string
	key() string
	// value is what a container is given; nil: nothing. The error says why it cannot be
	// changed.
	value(c containerSpec) (*string, error)
	// set changes it in a spec; nil removes it.
	set(spec object, to *string)
	// same reports whether two values mean the same.
	same(a, b *string) bool
	// shown is a value as people are told.
	shown(v *string) string
}

// envField is a variable of the service's environment. Its value is the whole entry,
// NAME=value, or NAME alone, which unsets what the image sets.
type envField struct{ variable string }

func (f envField) name() string { return f.variable }
func (f envField) key() string  { return "env/" + f.variable }

func (f envField) is(entry string) bool {
	name, _, _ := strings.Cut(entry, "=")
	return name == f.variable
}

func (f envField) value(c containerSpec) (*string, error) {
	i := slices.IndexFunc(c.Env, f.is)
	if i < 0 {
		return nil, nil
	}
	if slices.ContainsFunc(c.Env[i+1:], f.is) {
		return nil, hint.Add(fmt.Errorf("%s is in the service's environment twice", f.variable), "docker service update --env-rm %s --env-add %[1]s=...", f.variable)
	}
	return &c.Env[i], nil
}

func (f envField) set(spec object, to *string) {
	c := containerIn(spec)
	env, _ := c["Env"].([]any)
	i := slices.IndexFunc(env, func(e any) bool { s, _ := e.(string); return f.is(s) })
	switch {
	case to == nil && i >= 0:
		env = slices.Delete(env, i, i+1)
	case to == nil:
	case i >= 0:
		env[i] = *to
	default:
		env = append(env, *to)
	}
	if c["Env"] = env; len(env) == 0 {
		delete(c, "Env")
	}
}

func (envField) same(a, b *string) bool { return replicas.Same(a, b) }

func (envField) shown(v *string) string {
	if v == nil {
		return "not set"
	}
	if _, value, ok := strings.Cut(*v, "="); ok {
		return value
	}
	return "unset"
}

// imageField is the service's image. docker stack deploy adds the digest that it found,
// which does not make another image of it.
type imageField struct{}

func (imageField) name() string { return "the image" }
func (imageField) key() string  { return "image" }

func (imageField) value(c containerSpec) (*string, error) { return &c.Image, nil }

func (imageField) set(spec object, to *string) {
	containerIn(spec)["Image"] = *to
	if labels := in(spec, "Labels"); labels[imageLabel] != nil {
		labels[imageLabel] = replicas.Undigested(*to)
	}
}

func (imageField) same(a, b *string) bool {
	return a == b || a != nil && b != nil && replicas.Undigested(*a) == replicas.Undigested(*b)
}

func (imageField) shown(v *string) string { return *v }
