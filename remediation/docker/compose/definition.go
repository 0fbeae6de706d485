package compose

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/docker/projectfile"
)

// Setting is what a service gets for one environment variable.
type Setting struct {
	Value string
	Set   bool
}

// Definition is what a project's files say of one service: what compose would create
// a container from, run from a shell that sets no variable. compose-go, compose's own
// loader, reads it.
type Definition struct {
	Project
	Spec    types.ServiceConfig
	others  types.Services // all services of the project
	Configs types.Configs
	Secrets types.Secrets
	Values  types.Mapping // of the env files
	// missing is a variable that the image's name requires and the env files lack; nil:
	// none. What else requires one does not matter: the operator's shell may have it.
	missing error
}

// Contents are files that are read as they are going to be, instead of as they are.
type Contents map[string][]byte

// Define reads a service's definition, with some files as they are going to be.
func (p Project) Define(service string, instead Contents) (Definition, error) {
	d := Definition{Project: p}
	env, err := p.environment(instead)
	if err != nil {
		return d, err
	}
	details := types.ConfigDetails{WorkingDir: p.Dir, Environment: types.Mapping{}}
	for name, s := range env {
		details.Environment[name] = s.Value
	}
	files := p.Files
	if p.Override != "" && (instead[p.Override] != nil || p.in.Has(p.Override)) {
		files = append(slices.Clone(files), p.Override)
	}
	for _, path := range files {
		data, err := p.content(path, instead)
		if err != nil {
			return d, fmt.Errorf("read compose file: %w", err)
		}
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: path, Content: data})
	}
	var lacks *template.MissingRequiredError
	options := func(o *loader.Options) {
		o.SetProjectName(p.name, true)
		o.Profiles = []string{"*"}
		// Compose itself has validated what runs; older generations took more.
		o.SkipValidation, o.SkipConsistencyCheck, o.SkipNormalization = true, true, true
		// Both read files that may lie outside of the project.
		o.SkipResolveEnvironment, o.SkipResolveLabels = true, true
		o.Interpolate.Substitute = func(text string, values template.Mapping) (string, error) {
			text, err := template.SubstituteWithOptions(text, values, template.WithoutLogging)
			if errors.As(err, &lacks) {
				err = nil
			}
			return text, err
		}
	}
	loaded, err := loader.LoadWithContext(context.Background(), details, options)
	if err != nil {
		return d, hint.Add(fmt.Errorf("load %s: %s", strings.Join(files, ", "), scrub(err, env)), "docker compose config")
	}
	d.others, d.Configs, d.Secrets, d.Values = loaded.Services, loaded.Configs, loaded.Secrets, loaded.Environment
	var ok bool
	if d.Spec, ok = loaded.Services[service]; !ok {
		return d, fmt.Errorf("service %s is in none of %s", service, strings.Join(files, ", "))
	}
	if lacks != nil {
		d.missing = imageLacks(details, options, service)
	}
	return d, d.fillEnvironment(loaded.Environment, instead)
}

// DefineWith is the definition as it would be with another content of an env file; an
// error where the image could not be told then.
func (p Project) DefineWith(service, path string, env []byte) (Definition, error) {
	d, err := p.Define(service, Contents{path: env})
	if err == nil {
		err = d.missing
	}
	return d, err
}

// imageLacks returns the variable that a service's image requires and the environment lacks.
func imageLacks(details types.ConfigDetails, options func(*loader.Options), service string) error {
	model, err := loader.LoadModelWithContext(context.Background(), details, options, func(o *loader.Options) { o.SkipInterpolation = true })
	if err != nil {
		return fmt.Errorf("the image of service %s: %w", service, err)
	}
	services, _ := model["services"].(map[string]any)
	spec, _ := services[service].(map[string]any)
	image, _ := spec["image"].(string)
	_, err = template.SubstituteWithOptions(image, details.Environment.Resolve, template.WithoutLogging)
	if lacks := (&template.MissingRequiredError{}); errors.As(err, &lacks) {
		return hint.Add(fmt.Errorf("image: %s of service %s needs the variable %s, and no env file has it", image, service, lacks.Variable), "write it into .env")
	}
	return nil
}

// fillEnvironment fills in what the service's env_file gives it. Compose itself complains of a
// file that is not there.
func (d *Definition) fillEnvironment(env types.Mapping, instead Contents) error {
	own := d.Spec.Environment.Resolve(env.Resolve)
	given := types.MappingWithEquals{}
	for _, file := range d.Spec.EnvFiles {
		data, err := d.content(file.Path, instead)
		if err != nil {
			continue
		}
		values, err := d.parse(file.Path, data, file.Format, func(name string) (string, bool) {
			if v, ok := env.Resolve(name); ok {
				return v, true
			}
			v, ok := own[name]
			if !ok || v == nil {
				return "", false
			}
			return *v, true
		})
		if err != nil {
			return fmt.Errorf("service %s: env_file: %w", d.Spec.Name, err)
		}
		for name, s := range values {
			given[name] = &s.Value
		}
	}
	d.Spec.Environment = given.OverrideBy(own)
	return nil
}

// Variable returns what the service gets for a variable.
func (d Definition) Variable(name string) Setting {
	if v := d.Spec.Environment[name]; v != nil {
		return Setting{*v, true}
	}
	return Setting{}
}

// Sets reports whether the service's files set a variable themselves.
func (d Definition) Sets(name string) bool { return d.Variable(name).Set }

// Question asks compose for its hash of the service as it was read. images are what its
// containers run, which the first generation's hash has in it; id is what the name of its
// image is to stand for then, "" where that stays.
func (d Definition) Question(images []string, id string) HashQuestion {
	service, err := json.Marshal(d.Spec)
	if err != nil { // a value of an extension that JSON has no form for
		service = fmt.Appendf(nil, "%#v", d.Spec)
	}
	images = slices.Compact(slices.Sorted(slices.Values(images)))
	key := sha256.Sum256(fmt.Appendf(nil, "%+v %q %s", d.Project, images, service))
	return HashQuestion{Project: d.Project, service: d.Spec.Name, profiles: d.Spec.Profiles, key: fmt.Sprintf("%x %s", key, id)}
}

// At names the service and where it is defined, for messages.
func (d Definition) At() string {
	return fmt.Sprintf("%s: service %s", strings.Join(d.Files, ", "), d.Spec.Name)
}

// Runs returns the image that a service's files name; where they only build one, that is
// made: what its containers were made from.
func (d Definition) Runs(made []string) (Reference, error) {
	name := d.Spec.Image
	for _, m := range made {
		if name == "" && !IsImageID(m) {
			name = m
		}
	}
	switch {
	case d.missing != nil:
		return Reference{}, d.missing
	case name == "":
		return Reference{}, hint.Add(fmt.Errorf("%s names no image", d.At()), "image: %s", d.Spec.Name)
	case !plainImage.MatchString(name), strings.Contains(name, ".."):
		return Reference{}, fmt.Errorf("%s: image %q is not an image's name", d.At(), name)
	}
	return ParseReference(name), nil
}

// Pulls refuses a service whose next docker-compose up would replace its image.
func (d Definition) Pulls() error {
	switch pull := d.Spec.PullPolicy; {
	case pull == "build", pull == "always", pull == "daily", pull == "weekly", strings.HasPrefix(pull, "every_"):
		return hint.Add(fmt.Errorf("%s has pull_policy: %s, so that the next docker-compose up would replace the image that was put back", d.At(), pull),
			"pull_policy: missing")
	}
	return nil
}

// keys returns the keys that the service sets, with their values.
func (d Definition) keys() (map[string]any, error) {
	raw, err := json.Marshal(d.Spec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.At(), err)
	}
	set := map[string]any{}
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, fmt.Errorf("%s: %w", d.At(), err)
	}
	maps.DeleteFunc(set, func(_ string, v any) bool { return v == nil })
	return set, nil
}

// OthersThatDiffer returns the other services of the project that differ between two
// definitions.
func (d Definition) OthersThatDiffer(other Definition) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(d.others)) {
		if name != d.Spec.Name && !reflect.DeepEqual(d.others[name], other.others[name]) {
			all = append(all, name)
		}
	}
	return all
}

// DiffersElsewhere returns a key of the service, apart from image and environment, that differs
// between two values of a variable; "" where there is none.
func (d Definition) DiffersElsewhere(other Definition) (string, error) {
	have, err := d.keys()
	if err != nil {
		return "", err
	}
	has, err := other.keys()
	if err != nil {
		return "", err
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		// environment is followed, env_file into it, and build is not the container's.
		if !slices.Contains([]string{"image", "environment", "env_file", "build"}, key) && !reflect.DeepEqual(have[key], has[key]) {
			return key, nil
		}
	}
	return "", nil
}

// environment returns the variables that a project's env files give to its compose
// files: of several files, the last that has a variable wins.
func (p Project) environment(instead Contents) (map[string]Setting, error) {
	all := map[string]Setting{}
	for _, path := range p.EnvFiles {
		data, err := p.content(path, instead)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		values, err := p.parse(path, data, "", func(name string) (string, bool) { return all[name].Value, all[name].Set })
		if err != nil {
			return nil, err
		}
		maps.Copy(all, values)
	}
	return all, nil
}

// parse reads a file of variables as the project's generation of compose does. The
// error has nothing from the file but a line's number.
func (p Project) parse(path string, data []byte, format string, lookup dotenv.LookupFn) (map[string]Setting, error) {
	values := map[string]string{}
	var err error
	switch {
	case p.FirstGeneration():
		values = projectfile.EnvValues(data)
	case format == "raw": // compose itself registers this one
		for line := range strings.Lines(string(data)) {
			if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "="); ok && !strings.HasPrefix(name, "#") {
				values[name] = value
			}
		}
	default:
		err = dotenv.ParseWithFormat(bytes.NewReader(data), path, values, lookup, format)
	}
	if err != nil {
		return nil, hint.Add(fmt.Errorf("cannot read %s as compose does%s", path, envErrorLine.FindString(err.Error())), "docker compose config")
	}
	all := map[string]Setting{}
	for name, value := range values {
		all[name] = Setting{value, true}
	}
	return all, nil
}

var envErrorLine = regexp.MustCompile(`: line \d+`)

// scrub is an error's text without the values of variables, which may be secrets.
func scrub(err error, env map[string]Setting) string {
	text := err.Error()
	for name, s := range env {
		if len(s.Value) > 3 {
			text = strings.ReplaceAll(text, s.Value, "(value of "+name+")")
		}
	}
	return text
}

// content returns a project file as it is going to be, or as it is.
func (p Project) content(path string, instead Contents) ([]byte, error) {
	if data, ok := instead[path]; ok {
		return data, nil
	}
	return p.in.Read(path)
}

func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}
