package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// project is the files of a compose project that are in effect.
type project struct {
	envPath string
	// files are the compose files, without the override file; explicit tells that
	// somebody named them with -f or COMPOSE_FILE.
	files    []string
	explicit bool
	// override is the override file, there or not; "" where explicit.
	override string
	// overrideLabel is the name that the config_files label must learn of, if any.
	overrideLabel string
	version       string // of the compose that made the newest container
	name          string
}

var (
	composeNames  = []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}
	overrideNames = []string{"docker-compose.override.yml", "docker-compose.override.yaml", "compose.override.yml", "compose.override.yaml"}
)

// locate finds the project's files from the newest container's labels, or, where
// there is none, as compose would find them itself.
func (c *Client) locate(f *fleet) (project, error) {
	var l project
	var newest *replica
	for _, r := range f.replicas {
		if newest == nil || r.Created > newest.Created {
			newest = r
		}
	}
	l.envPath = filepath.Join(f.dir, ".env")
	if newest != nil {
		if label := newest.label(labelEnvFile); label != "" {
			all := strings.Split(label, ",") // the last one wins
			l.envPath = within(f.dir, all[len(all)-1])
		}
		for _, name := range strings.Split(newest.label(labelConfigFiles), ",") {
			if name != "" {
				l.files = append(l.files, within(f.dir, name))
			}
		}
		l.version, l.name = newest.label(labelVersion), newest.label(labelProject)
	}
	if len(l.files) == 0 {
		for _, name := range composeNames {
			if path := filepath.Join(f.dir, name); c.there(path) {
				l.files = []string{path}
				break
			}
		}
		for _, name := range overrideNames {
			if path := filepath.Join(f.dir, name); len(l.files) == 1 && c.there(path) {
				l.files = append(l.files, path)
			}
		}
	}
	if len(l.files) == 0 {
		return project{}, fmt.Errorf("no compose file in %s; try: one of %s", f.dir, strings.Join(composeNames, ", "))
	}
	for _, path := range append(slices.Clone(l.files), l.envPath) {
		if _, err := c.allowed(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return project{}, fmt.Errorf("compose project: %w", err)
		}
	}
	err := c.locateOverride(&l)
	return l, err
}

// locateOverride tells whether compose, run without -f, would read an override
// file beside what the containers were made from.
func (c *Client) locateOverride(l *project) error {
	base := l.files[0]
	if !slices.Contains(composeNames, filepath.Base(base)) || len(l.files) > 2 {
		l.explicit = true
		return nil
	}
	if len(l.files) == 2 {
		if !slices.Contains(overrideNames, filepath.Base(l.files[1])) {
			l.explicit = true
			return nil
		}
		l.override, l.files = l.files[1], l.files[:1]
		return nil
	}
	dir := filepath.Dir(base)
	for _, name := range overrideNames {
		path := filepath.Join(dir, name)
		data, missing, err := c.readOptional(path)
		if err != nil {
			return err
		}
		if missing != "" {
			continue
		}
		if !strings.Contains(string(data), overrideMark) {
			// It is there and was not read: the file was named by hand.
			l.explicit = true
			return nil
		}
		l.override, l.overrideLabel = path, name
		return nil
	}
	name := "docker-compose.override.yml"
	if strings.HasPrefix(filepath.Base(base), "compose.") {
		name = "compose.override.yml"
	}
	l.override, l.overrideLabel = filepath.Join(dir, name), name
	return nil
}

// labelFor is how the config_files label would name the override file.
func (l *project) labelFor(r *replica) string {
	first, _, _ := strings.Cut(r.label(labelConfigFiles), ",")
	if l.overrideLabel == "" || first == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(first), l.overrideLabel)
}

// ask is the question to the compose tool about the files as they were read.
func (l *project) ask(f *fleet, read map[string][32]byte) hashQuestion {
	q := hashQuestion{dir: f.dir, service: f.service, version: l.version, project: l.name}
	if l.explicit {
		q.files = l.files
	}
	if l.envPath != filepath.Join(f.dir, ".env") {
		q.envFile = l.envPath
	}
	paths := make([]string, 0, len(read))
	for p := range read {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	all := fmt.Appendf(nil, "%q %q %q %q %q\n", q.dir, q.service, q.files, q.version, q.project)
	for _, p := range paths {
		all = fmt.Appendf(all, "%q %x\n", p, read[p])
	}
	// The first generation's hash has the image in it.
	var images []string
	for _, r := range f.replicas {
		images = append(images, r.Image)
	}
	slices.Sort(images)
	all = fmt.Appendf(all, "%q\n", slices.Compact(images))
	sum := sha256.Sum256(all)
	q.key = hex.EncodeToString(sum[:])
	return q
}

func (c *Client) there(path string) bool {
	_, missing, err := c.readOptional(path)
	return err == nil && missing == ""
}

// readOptional reads a file that need not be there.
func (c *Client) readOptional(path string) (data []byte, missing string, err error) {
	data, err = c.readProjectFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "yes", nil
	}
	return data, "", err
}
