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

	"github.com/locotoki/backout/alerts"
)

// lasting is where a flag lasts: the project's .env and, where that does not
// decide, an override file.
type lasting struct {
	envPath string
	// files are the compose files in effect, without the override that would be
	// written; explicit tells that somebody named them with -f or COMPOSE_FILE.
	files    []string
	explicit bool
	// override is the override file, there or not; "" where explicit.
	override string
	// overrideLabel is the name that the config_files label must learn of, if any.
	overrideLabel string

	env   fileState[envEntry]
	extra fileState[overrideEntry]

	// now is what a container created from a clean shell would get; envOff and
	// extraOff tell what the two files hold.
	now              setting
	envOff, extraOff bool
	// literal: the compose files decide, whatever .env says. shell: a running
	// replica has another value than the files give, so a shell had one.
	literal, shell bool
	// whenOff and asIs ask compose for its hash with the flag written, and with the
	// files as they were read.
	whenOff, asIs hashQuestion
	version       string
	project       string
}

// fileState is one file's part of a snapshot.
type fileState[E any] struct {
	Path string `json:"path"`
	// Missing is "yes" where the file was not there.
	Missing string `json:"missing,omitempty"`
	Entry   E      `json:"entry"`
}

var (
	composeNames  = []string{"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"}
	overrideNames = []string{"docker-compose.override.yml", "docker-compose.override.yaml", "compose.override.yml", "compose.override.yaml"}
)

// lastingOf reads where a flag lasts. It changes nothing.
func (c *Client) lastingOf(f *fleet, flag alerts.Flag) (*lasting, error) {
	l := &lasting{}
	if err := c.locate(f, l); err != nil {
		return nil, err
	}
	env, missing, err := c.readOptional(l.envPath)
	if err != nil {
		return nil, err
	}
	l.env = fileState[envEntry]{Path: l.envPath, Missing: missing, Entry: readEnvEntry(env, flag.Name)}
	if b, ok := lastEnv(env, flag.Name); ok && !b.bare {
		l.envOff = b.value == flag.Off
	}
	envAfter, err := setEnv(env, flag.Name, flag.Off)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.envPath, err)
	}

	files := l.files
	if l.override != "" {
		extra, missing, err := c.readOptional(l.override)
		if err != nil {
			return nil, err
		}
		l.extra = fileState[overrideEntry]{Path: l.override, Missing: missing}
		if l.extra.Entry, err = readOverrideEntry(extra, f.service, flag.Name); err != nil {
			return nil, fmt.Errorf("%s: %w", l.override, err)
		}
		l.extraOff = checkOverride(extra, f.service, flag.Name, flag.Off) == nil
		if missing == "" {
			files = append(slices.Clone(files), l.override)
		}
	}

	resolve := func(env []byte) (setting, hashQuestion, error) {
		read := map[string][32]byte{}
		r := composeReader{env: environment(env), read: func(path string) ([]byte, error) {
			data, err := c.readProjectFile(path)
			if path == l.envPath {
				data, err = env, nil
			}
			read[path] = sha256.Sum256(data)
			return data, err
		}}
		s, found, err := r.variable(files, f.service, flag.Name)
		if err == nil && !found {
			err = fmt.Errorf("service %s is in none of %s", f.service, strings.Join(files, ", "))
		}
		read[l.envPath] = sha256.Sum256(env)
		return s, l.ask(f, read), err
	}
	want := setting{flag.Off, true}
	// Before .env has the flag, the files may be incomplete: ${FLAG:?}.
	if l.now, l.asIs, err = resolve(env); err != nil {
		l.now = setting{}
	}
	after, question, err := resolve(envAfter)
	if err != nil {
		return nil, err
	}
	l.literal = after != want
	l.whenOff = question
	if !l.envOff {
		l.whenOff.assume = flag.Name + "=" + flag.Off
	}
	for _, r := range f.replicas {
		if v := r.variable(flag.Name); r.running() && v.set && v != want && v != l.now {
			l.shell = true
		}
	}
	if l.literal && l.explicit {
		return nil, fmt.Errorf("%s is set in %s itself, and these files are named by hand (-f or COMPOSE_FILE), so that no override file would be read; try: write %s: ${%s:-%s} there",
			flag.Name, strings.Join(files, ", "), flag.Name, flag.Name, flag.Off)
	}
	return l, nil
}

// locate finds the project's files from the newest container's labels, or, where
// there is none, as compose would find them itself.
func (c *Client) locate(f *fleet, l *lasting) error {
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
		l.version, l.project = newest.label(labelVersion), newest.label(labelProject)
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
		return fmt.Errorf("no compose file in %s; try: one of %s", f.dir, strings.Join(composeNames, ", "))
	}
	for _, path := range append(slices.Clone(l.files), l.envPath) {
		if _, err := c.allowed(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("compose project: %w", err)
		}
	}
	return c.locateOverride(f, l)
}

// locateOverride tells whether compose, run without -f, would read an override
// file beside what the containers were made from.
func (c *Client) locateOverride(f *fleet, l *lasting) error {
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
func (l *lasting) labelFor(r *replica) string {
	first, _, _ := strings.Cut(r.label(labelConfigFiles), ",")
	if l.overrideLabel == "" || first == "" {
		return ""
	}
	return filepath.Join(filepath.Dir(first), l.overrideLabel)
}

// ask is the question to the compose tool about the files as they were read.
func (l *lasting) ask(f *fleet, read map[string][32]byte) hashQuestion {
	q := hashQuestion{dir: f.dir, service: f.service, version: l.version, project: l.project}
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
	sum := sha256.Sum256(all)
	q.key = hex.EncodeToString(sum[:])
	return q
}

// predictable tells whether the compose tool can be asked before the files are
// written: a variable in its shell has the effect that .env is going to have.
func (l *lasting) predictable() bool { return !l.literal && !l.shell }

func environment(env []byte) map[string]setting {
	m := map[string]setting{}
	for _, b := range parseEnv(env) {
		if !b.bare {
			m[b.key] = setting{b.value, true}
		}
	}
	return m
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
