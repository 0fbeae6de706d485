package compose

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/docker/projectfile"
)

// Project is a compose project, as the labels of its newest container name it: where
// it lies, what it is called, and which files are in effect.
type Project struct {
	in   projectfile.Folders
	Dir  string
	name string
	// EnvFiles are the files of variables: of several, the last that has one wins.
	// Where nobody named any, that is .env, there or not.
	EnvFiles []string
	// Files are the compose files, without the override file; explicit tells that
	// someone named them with -f or COMPOSE_FILE.
	Files    []string
	Explicit bool
	// Override is the override file, there or not; "" where explicit.
	Override string
	// overrideLabel is the name that the config_files label must learn of, if any.
	overrideLabel string
	Version       string // of the compose that made the newest container
}

// FirstGeneration reports whether the project was started by the first generation of compose.
func (p Project) FirstGeneration() bool { return strings.HasPrefix(p.Version, "1.") }

var (
	composeNames  = []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}
	overrideNames = []string{"docker-compose.override.yml", "docker-compose.override.yaml", "compose.override.yml", "compose.override.yaml"}
)

// Locate finds the files of the project in a folder: from the labels of its newest
// container, or, where there is none (nil), as compose would find them itself. name is
// the project's then; "" is the folder's.
func Locate(in projectfile.Folders, dir, name string, labels map[string]string) (Project, error) {
	p := Project{in: in, Dir: dir, name: name}
	if labels != nil {
		for _, name := range listed(labels[labelEnvFile]) {
			p.EnvFiles = append(p.EnvFiles, within(dir, name))
		}
		for _, name := range listed(labels[LabelConfigFiles]) {
			p.Files = append(p.Files, within(dir, name))
		}
		p.Version, p.name = labels[LabelVersion], labels[LabelProject]
	}
	if p.name == "" {
		p.name = loader.NormalizeProjectName(filepath.Base(dir))
	}
	if len(p.EnvFiles) == 0 {
		p.EnvFiles = []string{filepath.Join(dir, ".env")}
	}
	if len(p.Files) == 0 {
		for _, name := range composeNames {
			if path := filepath.Join(dir, name); in.Has(path) {
				p.Files = []string{path}
				break
			}
		}
		for _, name := range overrideNames {
			if path := filepath.Join(dir, name); len(p.Files) == 1 && in.Has(path) {
				p.Files = append(p.Files, path)
			}
		}
	}
	if len(p.Files) == 0 {
		return Project{}, hint.Add(fmt.Errorf("no compose file in %s", dir), "one of %s", strings.Join(composeNames, ", "))
	}
	for _, path := range slices.Concat(p.Files, p.EnvFiles) {
		if _, err := in.Allowed(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Project{}, fmt.Errorf("compose project: %w", err)
		}
	}
	err := p.locateOverride()
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

// EnvFile returns the env file that decides on a variable, and its content: the last
// that sets it; the last of all where none does, so that nothing overrules it there.
func (p Project) EnvFile(variable string) (path string, data []byte, missing string, err error) {
	for i, candidate := range slices.Backward(p.EnvFiles) {
		content, gone, err := p.in.ReadOptional(candidate)
		if err != nil {
			return "", nil, "", err
		}
		_, sets := projectfile.EnvValue(content, variable)
		if sets || i == len(p.EnvFiles)-1 {
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
func (p *Project) locateOverride() error {
	base := p.Files[0]
	if !slices.Contains(composeNames, filepath.Base(base)) || len(p.Files) > 2 {
		p.Explicit = true
		return nil
	}
	if len(p.Files) == 2 {
		if !slices.Contains(overrideNames, filepath.Base(p.Files[1])) {
			p.Explicit = true
			return nil
		}
		p.Override, p.Files = p.Files[1], p.Files[:1]
		return nil
	}
	dir := filepath.Dir(base)
	for _, name := range overrideNames {
		path := filepath.Join(dir, name)
		data, missing, err := p.in.ReadOptional(path)
		if err != nil {
			return err
		}
		if missing != "" {
			continue
		}
		if !strings.Contains(string(data), projectfile.OverrideMark) {
			// It is there and was not read: the file was named by hand.
			p.Explicit = true
			return nil
		}
		p.Override, p.overrideLabel = path, name
		return nil
	}
	name := "docker-compose.override.yml"
	if strings.HasPrefix(filepath.Base(base), "compose.") {
		name = "compose.override.yml"
	}
	p.Override, p.overrideLabel = filepath.Join(dir, name), name
	return nil
}

// LabelFor is how the config_files label of a container would name the override file; ""
// where it need not.
func (p *Project) LabelFor(label string) string {
	first, _, _ := strings.Cut(label, ",")
	if p.overrideLabel == "" || first == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(first), p.overrideLabel)
}
