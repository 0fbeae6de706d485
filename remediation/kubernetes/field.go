package kubernetes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

// field is one value of a target that an operation changes.
type field interface {
	// name is the field as people are told, key as the mark has it.
	name() string
	key() string
	// value is the field's; nil: there is none. The error says why it cannot be changed.
	value(s *state) (*string, error)
	// set changes it from what value returned; nil removes it.
	set(p *patch, s *state, to *string)
	// inPod is the value that a pod was started with.
	inPod(s *state, p pod) string
	// owned is its path in managedFields of the object that holds it.
	owned(s *state) []string
}

// inConfigMap is a field that a ConfigMap holds.
type inConfigMap interface {
	// overruled says which source after the ConfigMap has the field too, or may have it, or returns nil.
	// asked: each pod is asked for what it serves.
	overruled(ctx context.Context, s *state, asked bool) error
}

func holdsConfigMap(f field) bool {
	_, ok := f.(inConfigMap)
	return ok
}

// containerPath is the path of the container in a JSON patch.
func (s *state) containerPath() string {
	return fmt.Sprintf("/spec/template/spec/containers/%d", s.index)
}

// testContainer demands that the container is the one that was seen, with its image.
func (s *state) testContainer(p *patch) {
	p.test(s.containerPath()+"/name", s.container().Name)
	p.test(s.containerPath()+"/image", s.container().Image)
}

var managedContainers = []string{"f:spec", "f:template", "f:spec", "f:containers"}

func byName(name string) string { return fmt.Sprintf(`k:{"name":%q}`, name) }

// envField is a variable of the container's own environment.
type envField struct{ container, variable string }

func (f envField) name() string { return f.variable + " of container " + f.container }
func (f envField) key() string  { return f.container + "/env/" + f.variable }

// find returns the variable's place, or -1.
func (f envField) find(env []variable) int {
	return slices.IndexFunc(env, func(v variable) bool { return v.Name == f.variable })
}

func (f envField) value(s *state) (*string, error) {
	env := s.container().Env
	i := f.find(env)
	if i < 0 {
		return nil, nil
	}
	switch v := env[i]; {
	case f.find(env[i+1:]) >= 0:
		return nil, hint.Add(fmt.Errorf("%s: %s is listed twice under env", s.place, f.name()), "keep the last one, which counts")
	case v.ValueFrom != nil && v.ValueFrom.ConfigMapKeyRef != nil:
		return nil, hint.Add(fmt.Errorf("%s: %s takes its value from a ConfigMap (valueFrom)", s.place, f.name()), "target: {kubernetes: {flags: {configmap: %s}}}", v.ValueFrom.ConfigMapKeyRef.Name)
	case v.ValueFrom != nil:
		return nil, hint.Add(fmt.Errorf("%s: %s takes its value from elsewhere (valueFrom), which backout does not change", s.place, f.name()), "write it as value: under env")
	default:
		return &v.Value, nil
	}
}

func (f envField) set(p *patch, s *state, to *string) {
	env, at := s.container().Env, s.containerPath()+"/env"
	s.testContainer(p)
	i := f.find(env)
	one := fmt.Sprintf("%s/%d", at, i)
	switch {
	case i >= 0:
		p.test(one+"/name", f.variable)
		p.test(one+"/value", text(env[i].Value))
		if to == nil {
			p.remove(one)
		} else {
			p.add(one+"/value", *to)
		}
	case to == nil:
	case len(env) == 0:
		p.test(at, nil)
		p.add(at, []map[string]string{{"name": f.variable, "value": *to}})
	default: // a list cannot be tested for what it lacks
		p.test("/metadata/generation", s.w.Metadata.Generation)
		p.add(at+"/-", map[string]string{"name": f.variable, "value": *to})
	}
}

func (f envField) inPod(_ *state, p pod) string {
	env := p.container(f.container).Env
	if i := f.find(env); i >= 0 && env[i].ValueFrom == nil { // what it is from elsewhere, only the pod itself knows
		return "=" + env[i].Value
	}
	return ""
}

func (f envField) owned(*state) []string {
	return append(slices.Clone(managedContainers), byName(f.container), "f:env", byName(f.variable), "f:value")
}

// imageField is the container's image.
type imageField struct{ container string }

func (f imageField) name() string { return "the image of container " + f.container }
func (f imageField) key() string  { return f.container + "/image" }

func (f imageField) value(s *state) (*string, error) { return &s.container().Image, nil }

func (f imageField) set(p *patch, s *state, to *string) {
	s.testContainer(p)
	p.add(s.containerPath()+"/image", *to)
}

func (f imageField) inPod(_ *state, p pod) string { return "=" + p.container(f.container).Image }

func (f imageField) owned(*state) []string {
	return append(slices.Clone(managedContainers), byName(f.container), "f:image")
}

// mapField is a variable that the container takes from a ConfigMap.
type mapField struct{ container, variable, configMap string }

func (f mapField) name() string { return f.variable + " of ConfigMap " + f.configMap }
func (f mapField) key() string  { return "data/" + f.variable }

// key is the key that gives the container the variable, if it takes any from the source.
func (from envSource) key(variable string) (string, bool) {
	key, fits := strings.CutPrefix(variable, from.Prefix)
	return key, fits && key != ""
}

// takes reports whether the source is the ConfigMap, and with which key it gives the variable.
func (f mapField) takes(from envSource) (key string, ours bool) {
	key, fits := from.key(f.variable)
	return key, fits && from.ConfigMapRef != nil && from.ConfigMapRef.Name == f.configMap
}

// source is the place in envFrom that gives the variable, or -1. As the kubelet does, the last source that has it counts;
// where the ConfigMap has it by no key yet, the last that could.
func (f mapField) source(s *state) int {
	could := -1
	for i, from := range slices.Backward(s.container().EnvFrom) {
		key, ours := f.takes(from)
		if !ours {
			continue
		}
		if _, has := s.cm.Data[key]; has {
			return i
		}
		could = max(could, i)
	}
	return could
}

// inEnv is the variable's entry under env, which overrules envFrom; nil: there is none. The last one counts.
func (f mapField) inEnv(s *state) *variable {
	for i, v := range slices.Backward(s.container().Env) {
		if v.Name == f.variable {
			return &s.container().Env[i]
		}
	}
	return nil
}

// dataKey is the key of the variable in the ConfigMap.
func (f mapField) dataKey(s *state) (string, error) {
	if v := f.inEnv(s); v != nil {
		if v.ValueFrom != nil && v.ValueFrom.ConfigMapKeyRef != nil && v.ValueFrom.ConfigMapKeyRef.Name == f.configMap {
			return v.ValueFrom.ConfigMapKeyRef.Key, nil
		}
		return "", hint.Add(fmt.Errorf("%s: container %s sets %s itself under env, which overrules ConfigMap %s", s.place, f.container, f.variable, f.configMap),
			"target: {kubernetes: {flags: env}}, or remove it under env")
	}
	if i := f.source(s); i >= 0 {
		key, _ := f.takes(s.container().EnvFrom[i])
		return key, nil
	}
	return "", hint.Add(fmt.Errorf("%s: container %s takes no %s from ConfigMap %s", s.place, f.container, f.variable, f.configMap),
		"envFrom: [{configMapRef: {name: %s}}] in the container, or target: {kubernetes: {flags: env}}", f.configMap)
}

// overruled implements inConfigMap. A later ConfigMap is looked at; a Secret never is.
func (f mapField) overruled(ctx context.Context, s *state, asked bool) error {
	i := f.source(s)
	if i < 0 || f.inEnv(s) != nil {
		return nil
	}
	for _, from := range s.container().EnvFrom[i+1:] {
		key, fits := from.key(f.variable)
		if _, ours := f.takes(from); ours || !fits {
			continue
		}
		what := "a source that backout does not know"
		unknown := errors.New("backout reads ConfigMaps alone")
		switch {
		case from.ConfigMapRef != nil:
			what = "ConfigMap " + from.ConfigMapRef.Name
			var later configMap
			err := s.do(ctx, http.MethodGet, s.configMapPath(from.ConfigMapRef.Name), "", nil, &later)
			switch jsonhttp.Answered(err) {
			case http.StatusNotFound: // optional, or no pod starts
				continue
			case http.StatusForbidden:
				unknown = err
			default:
				if err != nil {
					return fmt.Errorf("look at %s: %w", what, err)
				}
				if _, has := later.Data[key]; !has {
					continue
				}
				return hint.Add(fmt.Errorf("%s: container %s takes %s from %s too, which overrules ConfigMap %s: the last source of envFrom counts", s.place, f.container, f.variable, what, f.configMap),
					"target: {kubernetes: {flags: {configmap: %s}}}, or remove it there", from.ConfigMapRef.Name)
			}
		case from.SecretRef != nil:
			what = "Secret " + from.SecretRef.Name
		}
		if !asked {
			return hint.Add(fmt.Errorf("%s: container %s may take %s from %s, which would overrule ConfigMap %s: %w", s.place, f.container, f.variable, what, f.configMap, unknown),
				"target: {probe: {flags: ...}}, so that each pod is asked, or list ConfigMap %s last under envFrom", f.configMap)
		}
	}
	return nil
}

func (f mapField) value(s *state) (*string, error) {
	key, err := f.dataKey(s)
	if err != nil {
		return nil, err
	}
	if s.cm.Immutable {
		return nil, hint.Add(fmt.Errorf("%s is immutable", s.configMap()), "remove immutable: true, or target: {kubernetes: {flags: env}}")
	}
	if v, ok := s.cm.Data[key]; ok {
		return &v, nil
	}
	return nil, nil
}

func (f mapField) set(p *patch, s *state, to *string) {
	key, err := f.dataKey(s)
	if err != nil {
		return // value has said so
	}
	at := "/data/" + key // a key has no slash
	was, had := s.cm.Data[key]
	switch {
	case len(s.cm.Data) == 0:
		p.test("/data", nil)
		p.add("/data", map[string]string{})
	case had:
		p.test(at, was)
	default:
		p.test(at, nil)
	}
	if to == nil {
		p.remove(at)
	} else {
		p.add(at, *to)
	}
}

func (f mapField) inPod(_ *state, p pod) string { return "=" + p.Metadata.Annotations[hashAnnotation] }

func (f mapField) owned(s *state) []string {
	key, err := f.dataKey(s)
	if err != nil {
		return nil
	}
	return []string{"f:data", "f:" + key}
}

// hash names what pods get from the ConfigMap, and by which of our operations: pods that
// started before an operation may have an older value.
func (c *configMap) hash() string {
	raw, _ := json.Marshal([]any{c.Data, marks(c.Metadata)}) // sorted by key
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}
