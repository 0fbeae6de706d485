package docker

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// setting is what a service would get for one environment variable.
type setting struct {
	value string
	set   bool
}

// composeReader answers questions about a compose project: which value would a
// container of a service get for a variable, and which image, if it were created
// from a shell that sets nothing of either. It reads no more of the files than that needs, so that a
// variable which only the operator's shell has does not stand in the way.
type composeReader struct {
	env  map[string]setting // the .env file
	read func(path string) ([]byte, error)
}

// composeFile is the part of a compose file that says what is in a service's
// environment, and which image it is made from.
type composeFile struct {
	Include  []yaml.Node               `yaml:"include"`
	Services map[string]composeService `yaml:"services"`
}

type composeService struct {
	Environment yaml.Node `yaml:"environment"`
	EnvFile     yaml.Node `yaml:"env_file"`
	Extends     yaml.Node `yaml:"extends"`
	Image       yaml.Node `yaml:"image"`
	PullPolicy  yaml.Node `yaml:"pull_policy"`
}

// variable returns what service gets for name from files, the later ones over
// the earlier ones. found is false where no file has the service.
func (r composeReader) variable(files []string, service, name string) (s setting, found bool, err error) {
	layers, err := r.layers(files, service)
	if err != nil {
		return setting{}, false, err
	}
	var fromFile setting // of env_file, which any environment entry beats
	set := false
	for _, l := range layers {
		if f, err := r.inEnvFiles(l, name); err != nil {
			return setting{}, false, fmt.Errorf("%s: service %s: env_file: %w", l.path, service, err)
		} else if f.set {
			fromFile = f
		}
		e, err := environmentEntry(&l.Environment, name)
		if err != nil {
			return setting{}, false, fmt.Errorf("%s: service %s: environment: %w", l.path, service, err)
		}
		if e == nil {
			continue
		}
		set = true
		if s, err = r.expand(*e, name); err != nil {
			return setting{}, false, fmt.Errorf("%s: service %s: environment: %s: %w", l.path, service, name, err)
		}
	}
	if !set {
		s = fromFile
	}
	return s, len(layers) > 0, nil
}

// rawEntry is an entry of environment; bare is one without a value of its own.
type rawEntry struct {
	text string
	bare bool
}

func (r composeReader) expand(e rawEntry, name string) (setting, error) {
	if e.bare {
		return r.env[name], nil
	}
	text, err := interpolate(e.text, r.env)
	return setting{text, true}, err
}

// maxDepth ends extends and include that go round in a circle.
const maxDepth = 16

// layer is one definition of a service, and the file it is in.
type layer struct {
	composeService
	path string
}

// layers returns what files say of a service: what it extends before it, and the
// later files after the earlier ones.
func (r composeReader) layers(files []string, service string) ([]layer, error) {
	var all []layer
	for _, path := range files {
		l, err := r.inFile(path, service, 0)
		if err != nil {
			return nil, err
		}
		all = append(all, l...)
	}
	return all, nil
}

func (r composeReader) inFile(path, service string, depth int) ([]layer, error) {
	fail := func(err error) ([]layer, error) { return nil, fmt.Errorf("read compose file %s: %w", path, err) }
	if depth > maxDepth {
		return fail(fmt.Errorf("extends or include goes more than %d deep", maxDepth))
	}
	data, err := r.read(path)
	if err != nil {
		return fail(err)
	}
	var file composeFile
	if err := yaml.Unmarshal(data, &file); err != nil {
		return fail(err)
	}
	svc, ok := file.Services[service]
	if !ok {
		for _, inc := range file.Include {
			for _, p := range scalars(&inc) {
				if found, err := r.inFile(within(filepath.Dir(path), p), service, depth+1); err != nil || len(found) > 0 {
					return found, err
				}
			}
		}
		return nil, nil
	}
	var all []layer
	if base, in := extended(&svc.Extends); base != "" {
		from := path
		if in != "" {
			from = within(filepath.Dir(path), in)
		}
		if all, err = r.inFile(from, base, depth+1); err != nil {
			return fail(err)
		}
	}
	return append(all, layer{svc, path}), nil
}

// inEnvFiles returns what a layer's env_file has for a variable.
func (r composeReader) inEnvFiles(l layer, name string) (s setting, err error) {
	for _, p := range scalars(&l.EnvFile) {
		p, err := interpolate(p, r.env)
		if err != nil {
			return setting{}, err
		}
		env, err := r.read(within(filepath.Dir(l.path), p))
		if err != nil {
			continue // it may be optional; compose itself says so if it is not
		}
		if b, ok := lastEnv(env, name); ok {
			if s = (setting{b.value, true}); b.bare {
				s = r.env[name]
			}
		}
	}
	return s, nil
}

func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// environmentEntry returns the entry for name of an environment, which is a
// mapping or a list of NAME=value.
func environmentEntry(n *yaml.Node, name string) (*rawEntry, error) {
	switch n := target(n); n.Kind {
	case 0:
	case yaml.MappingNode:
		var m map[string]yaml.Node
		if err := n.Decode(&m); err != nil {
			return nil, err
		}
		v, ok := m[name]
		if !ok {
			return nil, nil
		}
		return &rawEntry{text: target(&v).Value, bare: target(&v).ShortTag() == "!!null"}, nil
	case yaml.SequenceNode:
		var found *rawEntry
		for _, item := range n.Content {
			k, v, ok := strings.Cut(target(item).Value, "=")
			if k == name {
				found = &rawEntry{text: v, bare: !ok}
			}
		}
		return found, nil
	case yaml.ScalarNode:
		if n.ShortTag() != "!!null" {
			return nil, fmt.Errorf("line %d is neither a mapping nor a list", n.Line)
		}
	}
	return nil, nil
}

// target follows an alias.
func target(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// field returns a mapping's value, or an empty node.
func field(n *yaml.Node, key string) *yaml.Node {
	n = target(n)
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				return target(n.Content[i+1])
			}
		}
	}
	return &yaml.Node{}
}

// scalars returns a node's text, or those of a list's items; of an item that is
// a mapping, its path.
func scalars(n *yaml.Node) []string {
	switch n := target(n); n.Kind {
	case yaml.ScalarNode:
		if n.ShortTag() != "!!null" {
			return []string{n.Value}
		}
	case yaml.SequenceNode:
		var all []string
		for _, item := range n.Content {
			all = append(all, scalars(item)...)
		}
		return all
	case yaml.MappingNode:
		return scalars(field(n, "path"))
	}
	return nil
}

// extended returns the service that one extends, and the file it is in ("": the same).
func extended(n *yaml.Node) (service, file string) {
	n = target(n)
	if n.Kind == yaml.ScalarNode {
		return n.Value, ""
	}
	return field(n, "service").Value, field(n, "file").Value
}

// interpolate expands $NAME and ${NAME...} as compose does.
func interpolate(s string, env map[string]setting) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(s, "$")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		switch {
		case strings.HasPrefix(rest, "$"):
			out.WriteByte('$')
			s = rest[1:]
		case strings.HasPrefix(rest, "{"):
			end := closing(rest)
			if end < 0 {
				return "", fmt.Errorf("%q: ${ without }", s)
			}
			v, err := substitute(rest[1:end], env)
			if err != nil {
				return "", err
			}
			out.WriteString(v)
			s = rest[end+1:]
		default:
			n := nameLength(rest)
			if n == 0 {
				return "", fmt.Errorf("%q: a $ without a name", s)
			}
			out.WriteString(env[rest[:n]].value)
			s = rest[n:]
		}
	}
}

// closing returns where the brace that s begins with is closed, or -1.
func closing(s string) int {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func nameLength(s string) int {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return i
		}
	}
	return len(s)
}

// substitute expands what stands between the braces.
func substitute(s string, env map[string]setting) (string, error) {
	n := nameLength(s)
	if n == 0 {
		return "", fmt.Errorf("${%s}: no name", s)
	}
	name, op := s[:n], s[n:]
	v := env[name]
	present := v.set
	if strings.HasPrefix(op, ":") {
		present = v.value != ""
		op = op[1:]
	}
	switch {
	case op == "" && s == name:
		return v.value, nil
	case strings.HasPrefix(op, "-"):
		if present {
			return v.value, nil
		}
		return interpolate(op[1:], env)
	case strings.HasPrefix(op, "+"):
		if !present {
			return "", nil
		}
		return interpolate(op[1:], env)
	case strings.HasPrefix(op, "?"):
		if present {
			return v.value, nil
		}
		return "", fmt.Errorf("${%s}: %s is required and not in .env", s, name)
	}
	return "", fmt.Errorf("${%s}: not understood", s)
}

// keysWith returns the keys of a service whose value has a variable in it.
func keysWith(file []byte, service, variable string) ([]string, error) {
	var doc struct {
		Services map[string]yaml.Node `yaml:"services"`
	}
	if err := yaml.Unmarshal(file, &doc); err != nil {
		return nil, err
	}
	of := doc.Services[service]
	svc := target(&of)
	var keys []string
	if svc.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(svc.Content); i += 2 {
		if mentions(svc.Content[i+1], variable) {
			keys = append(keys, svc.Content[i].Value)
		}
	}
	return keys, nil
}

// mentions reports whether $NAME or ${NAME...} stands anywhere in a node.
func mentions(n *yaml.Node, name string) bool {
	for rest := n.Value; n.Kind == yaml.ScalarNode; {
		_, after, found := strings.Cut(rest, "$")
		if !found {
			return false
		}
		rest = after
		after = strings.TrimPrefix(after, "{")
		if nameLength(after) == len(name) && strings.HasPrefix(after, name) {
			return true
		}
	}
	return slices.ContainsFunc(target(n).Content, func(c *yaml.Node) bool { return mentions(c, name) })
}
