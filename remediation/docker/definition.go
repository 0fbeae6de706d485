package docker

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

// setting is what a service gets for one environment variable.
type setting struct {
	value string
	set   bool
}

// definition is what a project's files say of one service: what compose would create
// a container from, run from a shell that sets no variable. compose-go, compose's own
// loader, reads it.
type definition struct {
	project
	spec    types.ServiceConfig
	others  types.Services // all services of the project
	configs types.Configs
	secrets types.Secrets
	values  types.Mapping // of the env files
	// missing is a variable that the image's name requires and the env files lack; nil:
	// none. What else requires one does not matter: the operator's shell may have it.
	missing error
}

// contents are files that are read as they are going to be, instead of as they are.
type contents map[string][]byte

// definitionOf reads a service's definition.
func (c *Client) definitionOf(f *fleet) (definition, error) {
	p, err := c.locate(f)
	if err != nil {
		return definition{}, err
	}
	return c.define(p, f.service, nil)
}

// define reads a service's definition, with some files as they are going to be.
func (c *Client) define(p project, service string, instead contents) (definition, error) {
	d := definition{project: p}
	env, err := c.environment(p, instead)
	if err != nil {
		return d, err
	}
	details := types.ConfigDetails{WorkingDir: p.dir, Environment: types.Mapping{}}
	for name, s := range env {
		details.Environment[name] = s.value
	}
	files := p.files
	if p.override != "" && (instead[p.override] != nil || c.files.Has(p.override)) {
		files = append(slices.Clone(files), p.override)
	}
	for _, path := range files {
		data, err := c.content(path, instead)
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
	d.others, d.configs, d.secrets, d.values = loaded.Services, loaded.Configs, loaded.Secrets, loaded.Environment
	var ok bool
	if d.spec, ok = loaded.Services[service]; !ok {
		return d, fmt.Errorf("service %s is in none of %s", service, strings.Join(files, ", "))
	}
	if lacks != nil {
		d.missing = imageLacks(details, options, service)
	}
	return d, c.fillEnvironment(&d, loaded.Environment, instead)
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
func (c *Client) fillEnvironment(d *definition, env types.Mapping, instead contents) error {
	own := d.spec.Environment.Resolve(env.Resolve)
	given := types.MappingWithEquals{}
	for _, file := range d.spec.EnvFiles {
		data, err := c.content(file.Path, instead)
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
			return fmt.Errorf("service %s: env_file: %w", d.spec.Name, err)
		}
		for name, s := range values {
			given[name] = &s.value
		}
	}
	d.spec.Environment = given.OverrideBy(own)
	return nil
}

// variable returns what the service gets for a variable.
func (d definition) variable(name string) setting {
	if v := d.spec.Environment[name]; v != nil {
		return setting{*v, true}
	}
	return setting{}
}

// sets reports whether the service's files set a variable themselves.
func (d definition) sets(name string) bool { return d.variable(name).set }

// ask is the question to the compose tool about the service as it was read.
func (d definition) ask(f *fleet) hashQuestion {
	q := hashQuestion{project: d.project, service: f.service, profiles: d.spec.Profiles}
	// The first generation's hash has the image in it.
	var images []string
	for _, r := range f.replicas {
		images = append(images, r.Image)
	}
	slices.Sort(images)
	service, err := json.Marshal(d.spec)
	if err != nil { // a value of an extension that JSON has no form for
		service = fmt.Appendf(nil, "%#v", d.spec)
	}
	q.key = fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%+v %q %q %s", d.project, f.service, slices.Compact(images), service)))
	return q
}

// question asks compose for its hash of the service as the files are, while its
// image's name stands for id.
func (d definition) question(f *fleet, id string) hashQuestion {
	q := d.ask(f)
	q.key += " " + id
	return q
}

// at names the service and where it is defined, for messages.
func (d definition) at() string {
	return fmt.Sprintf("%s: service %s", strings.Join(d.files, ", "), d.spec.Name)
}

// runs returns the image that a service's files name; where they only build one,
// that is what its containers were made from.
func (d definition) runs(f *fleet) (reference, error) {
	name := d.spec.Image
	for _, r := range f.replicas {
		if name == "" && !byID(r.Config.Image) {
			name = r.Config.Image
		}
	}
	switch {
	case d.missing != nil:
		return reference{}, d.missing
	case name == "":
		return reference{}, hint.Add(fmt.Errorf("%s names no image", d.at()), "image: %s", f.service)
	case !plainImage.MatchString(name), strings.Contains(name, ".."):
		return reference{}, fmt.Errorf("%s: image %q is not an image's name", d.at(), name)
	}
	return parseReference(name), nil
}

// plainImage is what may go into a call's address.
var plainImage = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@/-]*$`)

// byID reports whether an image is not given by its name.
func byID(image string) bool { return strings.HasPrefix(image, "sha256:") }

// moves returns the repository whose latest tag the service runs, so that moving
// it changes what the service is made from; or says why it would not. image, where
// it is not "", is the repository that a playbook names.
func (d definition) moves(f *fleet, image string) (repo string, err error) {
	ref, err := d.runs(f)
	if err != nil {
		return "", err
	}
	if image != "" && parseReference(image).repo != ref.repo {
		return "", hint.Add(fmt.Errorf("%s runs %s, and not %s, whose latest tag would be moved", d.at(), ref, parseReference(image).repo),
			"leave image out of the step, or name the service's own there")
	}
	if ref.digest != "" || ref.tag != latestTag {
		return "", hint.Add(fmt.Errorf("%s names %s, and not %s:%s: moving that tag would not change what the service runs", d.at(), ref, ref.repo, latestTag),
			"{action: image_retag, variable: TAG} where it is image: %s:${TAG}, or image: %s:%s there, and docker tag, before the rollout", ref.repo, ref.repo, latestTag)
	}
	if err := d.pulls(); err != nil {
		return "", err
	}
	for _, r := range f.replicas {
		if has := parseReference(r.Config.Image); r.running() && !byID(r.Config.Image) && has != ref {
			return "", hint.Add(fmt.Errorf("container %s was made from %s, and %s names %s: it is unclear which one the next docker-compose up takes", r.name(), has, d.at(), ref),
				"docker-compose up -d %s", f.service)
		}
	}
	return ref.repo, nil
}

// pulls refuses a service whose next docker-compose up would replace its image.
func (d definition) pulls() error {
	switch pull := d.spec.PullPolicy; {
	case pull == "build", pull == "always", pull == "daily", pull == "weekly", strings.HasPrefix(pull, "every_"):
		return hint.Add(fmt.Errorf("%s has pull_policy: %s, so that the next docker-compose up would replace the image that was put back", d.at(), pull),
			"pull_policy: missing")
	}
	return nil
}

// keys returns the keys that the service sets, with their values.
func (d definition) keys() (map[string]any, error) {
	raw, err := json.Marshal(d.spec)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.at(), err)
	}
	set := map[string]any{}
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, fmt.Errorf("%s: %w", d.at(), err)
	}
	maps.DeleteFunc(set, func(_ string, v any) bool { return v == nil })
	return set, nil
}

// environment returns the variables that a project's env files give to its compose
// files: of several files, the last that has a variable wins.
func (c *Client) environment(p project, instead contents) (map[string]setting, error) {
	all := map[string]setting{}
	for _, path := range p.envFiles {
		data, err := c.content(path, instead)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		values, err := p.parse(path, data, "", func(name string) (string, bool) { return all[name].value, all[name].set })
		if err != nil {
			return nil, err
		}
		maps.Copy(all, values)
	}
	return all, nil
}

// parse reads a file of variables as the project's generation of compose does. The
// error has nothing from the file but a line's number.
func (p project) parse(path string, data []byte, format string, lookup dotenv.LookupFn) (map[string]setting, error) {
	values := map[string]string{}
	var err error
	switch {
	case p.first():
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
	all := map[string]setting{}
	for name, value := range values {
		all[name] = setting{value, true}
	}
	return all, nil
}

var envErrorLine = regexp.MustCompile(`: line \d+`)

// scrub is an error's text without the values of variables, which may be secrets.
func scrub(err error, env map[string]setting) string {
	text := err.Error()
	for name, s := range env {
		if len(s.value) > 3 {
			text = strings.ReplaceAll(text, s.value, "(value of "+name+")")
		}
	}
	return text
}

// content returns a project file as it is going to be, or as it is.
func (c *Client) content(path string, instead contents) ([]byte, error) {
	if data, ok := instead[path]; ok {
		return data, nil
	}
	return c.files.Read(path)
}

func within(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}
