package swarm

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/docker/projectfile"
)

// lasting is where a field lasts: a variable of the env file, by which the next docker
// stack deploy gives the service its value.
type lasting struct {
	projectfile.FileState
	variable, to string
	// now is what docker stack deploy would give the service, deployed whether it is what
	// is wanted.
	now      *string
	deployed bool
}

// stackFile is the part of a stack file that says what one service gets.
type stackFile struct {
	files     projectfile.Folders
	path, env string // the two files
	dir       string
	stack     string
	service   string
	raw       []byte
	root      yaml.Node
}

// lastingOf reads where a field lasts; nil for a service of no stack. It changes nothing.
// values are what a variable may have so that the field becomes want.
func (c *Client) lastingOf(s *state, f field, want string, values ...string) (*lasting, error) {
	stack, name := s.stack()
	switch {
	case stack == "" && s.t.StackFile == "":
		return nil, nil
	case stack == "":
		return nil, hint.Add(fmt.Errorf("%s belongs to no stack, so that %s does not decide on it", s, s.t.StackFile), "remove stack_file and env_file in target.swarm, or docker stack deploy")
	case s.t.StackFile == "":
		return nil, hint.Add(fmt.Errorf("%s belongs to the stack %s: its next docker stack deploy would put back what backout changes", s, stack),
			"target: {swarm: {stack_file: ..., env_file: ...}}")
	}
	file := &stackFile{files: c.files, path: s.t.StackFile, env: s.t.EnvFile, dir: filepath.Dir(s.t.StackFile), stack: stack, service: name}
	var err error
	if file.raw, err = c.files.Read(file.path); err != nil {
		return nil, fmt.Errorf("read the stack file: %w", err)
	}
	if err := yaml.Unmarshal(file.raw, &file.root); err != nil {
		return nil, fmt.Errorf("read the stack file %s: %w", file.path, err)
	}
	env, missing, err := c.files.ReadOptional(file.env)
	if err != nil {
		return nil, fmt.Errorf("read the env file: %w", err)
	}
	l := &lasting{FileState: projectfile.FileState{Path: file.env, Missing: missing}}
	now, err := file.gives(f, env)
	if err != nil {
		return nil, err
	}
	l.now, l.deployed = now, f.same(now, &want)
	var wrote []byte
	for _, variable := range file.variables(f) {
		for _, value := range values {
			after, err := projectfile.SetEnv(env, variable, value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file.env, err)
			}
			got, err := file.gives(f, after)
			if err != nil {
				return nil, err
			}
			if f.same(got, &want) {
				l.variable, l.to, l.Entry = variable, value, projectfile.ReadEnv(env, variable)
				return l, nil
			}
			wrote = after
		}
	}
	if l.deployed {
		return l, nil // by a value of the stack file's own
	}
	return nil, file.decides(f, wrote)
}

// variables are those of the env file that may decide on a field.
func (p *stackFile) variables(f field) []string {
	var all []string
	text := ""
	if e, ok := f.(envField); ok {
		all = append(all, e.variable)
	}
	if n := p.node(f); n != nil {
		text = n.Value
	}
	named := template.ExtractVariables(map[string]any{"x": text}, template.DefaultPattern)
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// gives is what docker stack deploy would give the service, with that content of the env
// file: read by the shell for the stack file's variables, and taken line by line where
// the service names it under env_file.
func (p *stackFile) gives(f field, env []byte) (*string, error) {
	shell := projectfile.EnvValues(env)
	loaded, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir: p.dir, Environment: shell, ConfigFiles: []types.ConfigFile{{Filename: p.path, Content: p.raw}},
	}, func(o *loader.Options) {
		o.SetProjectName(p.stack, true)
		// docker stack deploy itself has taken the file.
		o.SkipValidation, o.SkipConsistencyCheck, o.SkipNormalization = true, true, true
		// These read files that may lie outside of the project; a stack file has neither
		// extends nor include.
		o.SkipResolveEnvironment, o.SkipResolveLabels, o.SkipExtends, o.SkipInclude = true, true, true, true
		o.Interpolate.Substitute = func(text string, values template.Mapping) (string, error) {
			return template.SubstituteWithOptions(text, values, template.WithoutLogging)
		}
	})
	if err != nil {
		return nil, hint.Add(fmt.Errorf("load %s: %s", p.path, scrub(err, shell)), "docker stack config -c %s", p.path)
	}
	s, ok := loaded.Services[p.service]
	if !ok {
		return nil, hint.Add(fmt.Errorf("%s has no service %s", p.path, p.service), "fix target.swarm.stack_file")
	}
	e, ok := f.(envField)
	if !ok {
		return &s.Image, nil
	}
	if v, set := s.Environment[e.variable]; set {
		entry := e.variable
		if v == nil {
			if v, set := shell[e.variable]; set {
				entry += "=" + v
			}
		} else {
			entry += "=" + *v
		}
		return &entry, nil
	}
	var entry *string
	for _, file := range s.EnvFiles {
		data := env
		if filepath.Clean(file.Path) != filepath.Clean(p.env) {
			if data, err = p.files.Read(file.Path); err != nil {
				return nil, fmt.Errorf("service %s: env_file: %w", p.service, err)
			}
		}
		for line := range lines(data) {
			if e.is(line) {
				entry = &line
			}
		}
	}
	return entry, nil
}

// lines are those of a file that docker stack deploy takes as variables: quotes and
// comments behind a value belong to the value.
func lines(data []byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		scan := bufio.NewScanner(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
		scan.Buffer(nil, len(data)+1)
		for scan.Scan() {
			line := strings.TrimLeft(scan.Text(), " \t")
			if line != "" && line[0] != '#' && !yield(line) {
				return
			}
		}
	}
}

// decides says that the stack file does not take a field from the env file, and where;
// wrote is the env file as it would have been, nil if no variable of it came into question.
func (p *stackFile) decides(f field, wrote []byte) error {
	n := p.node(f)
	name := f.name()
	if n != nil {
		try := "write ${" + name + "} as its value there, and the value into " + p.env
		if _, image := f.(imageField); image {
			try = "write the tag as a variable there, such as image: shop:${TAG}, and the tag into " + p.env
		}
		return hint.Add(fmt.Errorf("%s:%d: service %s sets %s there, whatever %s says: the next docker stack deploy would put it back", p.path, n.Line, p.service, name, p.env), "%s", try)
	}
	if e, ok := f.(envField); ok && p.names(p.env) {
		for i, line := range strings.Split(string(wrote), "\n") {
			if e.is(strings.TrimLeft(line, " \t")) {
				return hint.Add(fmt.Errorf("%s:%d: docker stack deploy takes all that follows %s= as the value, quotes and comments too", p.env, i+1, name), "write %s=VALUE alone on the line", name)
			}
		}
	}
	line := 1
	if s := p.at("services", p.service); s != nil {
		line = s.Line
	}
	return hint.Add(fmt.Errorf("%s:%d: service %s does not take %s from %s: the next docker stack deploy would put it back", p.path, line, p.service, name, p.env),
		"env_file: [%s], or environment: {%s: ${%[2]s}}", filepath.Base(p.env), name)
}

// names reports whether the service names a file under env_file.
func (p *stackFile) names(path string) bool {
	n := p.at("services", p.service, "env_file")
	if n == nil {
		return false
	}
	for _, file := range append(slices.Clone(n.Content), n) {
		if file.Kind == yaml.ScalarNode && within(p.dir, file.Value) == filepath.Clean(path) {
			return true
		}
	}
	return false
}

func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

// node is where the stack file has a field, nil if it does not.
func (p *stackFile) node(f field) *yaml.Node {
	e, ok := f.(envField)
	if !ok {
		return p.at("services", p.service, "image")
	}
	env := p.at("services", p.service, "environment")
	if env == nil || env.Kind == yaml.MappingNode {
		return p.at("services", p.service, "environment", e.variable)
	}
	for _, item := range env.Content {
		if e.is(item.Value) {
			return item
		}
	}
	return nil
}

// at is the node at a path of keys, nil if there is none. Aliases and merges are followed.
func (p *stackFile) at(path ...string) *yaml.Node {
	if len(p.root.Content) == 0 {
		return nil
	}
	n := p.root.Content[0]
	for _, key := range path {
		if n = member(n, key); n == nil {
			return nil
		}
	}
	return n
}

func member(n *yaml.Node, key string) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	var merged *yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if v.Kind == yaml.AliasNode {
			v = v.Alias
		}
		switch {
		case k.Value == key:
			return v
		case k.Tag == "!!merge" && v.Kind == yaml.SequenceNode:
			for _, part := range slices.Backward(v.Content) {
				if found := member(part, key); found != nil {
					merged = found
				}
			}
		case k.Tag == "!!merge":
			merged = member(v, key)
		}
	}
	return merged
}

// scrub is an error's text without the values of variables, which may be secrets.
func scrub(err error, values map[string]string) string {
	text := err.Error()
	for name, v := range values {
		if len(v) > 3 {
			text = strings.ReplaceAll(text, v, "(value of "+name+")")
		}
	}
	return text
}
