package docker

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/docker/projectfile"
)

// project is a compose project, as the labels of its newest container name it: where
// it lies, what it is called, and which files are in effect.
type project struct {
	dir  string
	name string
	// envFiles are the files of variables: of several, the last that has one wins.
	// Where nobody named any, that is .env, there or not.
	envFiles []string
	// files are the compose files, without the override file; explicit tells that
	// someone named them with -f or COMPOSE_FILE.
	files    []string
	explicit bool
	// override is the override file, there or not; "" where explicit.
	override string
	// overrideLabel is the name that the config_files label must learn of, if any.
	overrideLabel string
	version       string // of the compose that made the newest container
}

// first reports whether the project was started by the first generation of compose.
func (p project) first() bool { return strings.HasPrefix(p.version, "1.") }

var (
	composeNames  = []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}
	overrideNames = []string{"docker-compose.override.yml", "docker-compose.override.yaml", "compose.override.yml", "compose.override.yaml"}
)

// oneProject says which projects a folder's containers of a service belong to, where
// that is more than one and the playbook does not say which of them it means.
func oneProject(t alerts.ComposeTarget, replicas []*replica) error {
	names := map[string]bool{}
	for _, r := range replicas {
		names[r.label(labelProject)] = true
	}
	if len(names) < 2 {
		return nil
	}
	all := slices.Sorted(maps.Keys(names))
	return hint.Add(fmt.Errorf("%s has containers of service %s in %d projects: %s", t.ProjectDir, t.Service, len(all), strings.Join(all, ", ")),
		"target: {compose: {project: %s}} in the playbook, with the right one", all[0])
}

// locate finds the project's files from the newest container's labels, or, where
// there is none, as compose would find them itself.
func (c *Client) locate(f *fleet) (project, error) {
	p := project{dir: f.dir, name: f.project}
	var newest *replica
	for _, r := range f.replicas {
		if newest == nil || r.Created > newest.Created {
			newest = r
		}
	}
	if newest != nil {
		for _, name := range listed(newest.label(labelEnvFile)) {
			p.envFiles = append(p.envFiles, within(f.dir, name))
		}
		for _, name := range listed(newest.label(labelConfigFiles)) {
			p.files = append(p.files, within(f.dir, name))
		}
		p.version, p.name = newest.label(labelVersion), newest.label(labelProject)
	}
	if p.name == "" {
		p.name = loader.NormalizeProjectName(filepath.Base(f.dir))
	}
	if len(p.envFiles) == 0 {
		p.envFiles = []string{filepath.Join(f.dir, ".env")}
	}
	if len(p.files) == 0 {
		for _, name := range composeNames {
			if path := filepath.Join(f.dir, name); c.files.Has(path) {
				p.files = []string{path}
				break
			}
		}
		for _, name := range overrideNames {
			if path := filepath.Join(f.dir, name); len(p.files) == 1 && c.files.Has(path) {
				p.files = append(p.files, path)
			}
		}
	}
	if len(p.files) == 0 {
		return project{}, hint.Add(fmt.Errorf("no compose file in %s", f.dir), "one of %s", strings.Join(composeNames, ", "))
	}
	for _, path := range slices.Concat(p.files, p.envFiles) {
		if _, err := c.files.Allowed(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return project{}, fmt.Errorf("compose project: %w", err)
		}
	}
	err := c.locateOverride(&p)
	return p, err
}

// listed takes a label's list of files apart. Where the paths are absolute, a comma that
// no / follows is part of a path.
func listed(label string) []string {
	var all []string
	for _, part := range strings.Split(label, ",") {
		switch {
		case len(all) > 0 && filepath.IsAbs(all[0]) && !filepath.IsAbs(part):
			all[len(all)-1] += "," + part
		case part != "":
			all = append(all, part)
		}
	}
	return all
}

// envFile returns the env file that decides on a variable, and its content: the last
// that sets it; the last of all where none does, so that nothing overrules it there.
func (c *Client) envFile(p project, variable string) (path string, data []byte, missing string, err error) {
	for i, candidate := range slices.Backward(p.envFiles) {
		content, gone, err := c.files.ReadOptional(candidate)
		if err != nil {
			return "", nil, "", err
		}
		_, sets := projectfile.EnvValue(content, variable)
		if sets || i == len(p.envFiles)-1 {
			path, data, missing = candidate, content, gone
		}
		if sets {
			break
		}
	}
	return path, data, missing, nil
}

// locateOverride finds whether compose, run without -f, would read an override
// file next to what the containers were made from.
func (c *Client) locateOverride(p *project) error {
	base := p.files[0]
	if !slices.Contains(composeNames, filepath.Base(base)) || len(p.files) > 2 {
		p.explicit = true
		return nil
	}
	if len(p.files) == 2 {
		if !slices.Contains(overrideNames, filepath.Base(p.files[1])) {
			p.explicit = true
			return nil
		}
		p.override, p.files = p.files[1], p.files[:1]
		return nil
	}
	dir := filepath.Dir(base)
	for _, name := range overrideNames {
		path := filepath.Join(dir, name)
		data, missing, err := c.files.ReadOptional(path)
		if err != nil {
			return err
		}
		if missing != "" {
			continue
		}
		if !strings.Contains(string(data), projectfile.OverrideMark) {
			// It is there and was not read: the file was named by hand.
			p.explicit = true
			return nil
		}
		p.override, p.overrideLabel = path, name
		return nil
	}
	name := "docker-compose.override.yml"
	if strings.HasPrefix(filepath.Base(base), "compose.") {
		name = "compose.override.yml"
	}
	p.override, p.overrideLabel = filepath.Join(dir, name), name
	return nil
}

// labelFor is how the config_files label would name the override file.
func (p *project) labelFor(r *replica) string {
	first, _, _ := strings.Cut(r.label(labelConfigFiles), ",")
	if p.overrideLabel == "" || first == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(first), p.overrideLabel)
}
