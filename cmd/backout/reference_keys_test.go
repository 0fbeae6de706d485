package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation/scenario"
)

// keysReference makes the reference of a file's keys. A key's meaning is its field's
// comment. Its default is found out: the example is loaded without the key. It is
// required if that fails and every example has it. So each key must have an example, and
// each field a comment. What excludes something else in the example is in a smaller one.
type keysReference struct {
	t       *testing.T
	tag     string // the struct tag that names a key
	example *yaml.Node
	// smaller are examples that show what can be left out.
	smaller []*yaml.Node
	// load returns what was decoded, as a pointer to the root's type.
	load     func(source []byte) (any, error)
	comments map[string]string   // by package, type and field: alerts.Trigger.Above
	values   map[string][]string // of enumerations, by package and type: alerts.Unit
	keys     []string            // those that the page has
	page     strings.Builder
	schema   schemaNode // the same as a JSON Schema
}

// element is one part of a key's path: a name, or a list's item, which is of one kind
// of action where that is not "".
type element struct {
	name   string
	item   bool
	action string
}

func pathOf(elements []element) string {
	var b strings.Builder
	for i, e := range elements {
		switch {
		case e.item:
			b.WriteString("[]")
		case i > 0:
			b.WriteString("." + e.name)
		default:
			b.WriteString(e.name)
		}
	}
	return b.String()
}

func playbookReference(t *testing.T) *keysReference {
	kinds, err := actionKinds(config.Default(), nil, promslog.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kinds.Close(); err != nil {
			t.Error(err)
		}
	})
	r := newKeysReference(t, "yaml", "playbook.yaml", func(source []byte) (any, error) {
		return alerts.Parse("playbook.yaml", source, playbookKinds(kinds.list))
	}, "../../alerts", "../../remediation/action")
	r.schema = newSchema("backout playbook")
	fmt.Fprintf(&r.page, "# Playbook reference\n\n"+generatedNote, "the types in alerts/ and remediation/action/")
	r.page.WriteString("One YAML file per service holds every threshold, duration, flag, plan and limit. An unknown key is an error, and\n" +
		"`backout check` reports all errors with file, line and a hint. Keep the file writable by its owner only: it decides what runs.\n\n" +
		"Where the default is empty, nothing is set without the key. Durations are written as Prometheus writes them: `15s`, `5m`, `1h`,\n" +
		"`7d`. Rates are a count and a time: `3/1h`. A bound is in the unit of its indicator, a share of traffic between 0 and 1. The examples are\n" +
		"from [playbook.yaml](playbook.yaml), which has every key but those of Kubernetes; [alerts/playbook.yaml](../../alerts/playbook.yaml) is the one to copy.\n")
	good, err := filepath.Glob("../../testdata/playbooks/good/*.yaml")
	if err != nil || len(good) == 0 {
		t.Fatalf("no smaller playbooks: %v", err)
	}
	for _, name := range good {
		r.smaller = append(r.smaller, r.read(name))
	}
	r.sections(reflect.TypeFor[alerts.Playbook]())
	steps := []element{{name: "plans"}, {item: true}, {name: "steps"}}
	for _, k := range kinds.list {
		r.page.WriteString("\n## plans[].steps[] with action: " + k.Name() + "\n\n" +
			fmt.Sprintf("Risk: %s. [What it does](../actions/%s.md).\n", k.Risk(), k.Name()))
		r.header()
		of := append(slices.Clone(steps), element{item: true, action: k.Name()})
		r.schema.place(of) // also of a kind without keys of its own
		r.rows(of, reflect.TypeOf(k.NewParams()).Elem())
	}
	return r
}

func configurationReference(t *testing.T) *keysReference {
	dir := t.TempDir()
	for _, name := range []string{"prometheus.token", "alertmanager.password", "am.token", "oncall.token", "statuspage.key", "launchdarkly.token", "unleash.token", "kubeconfig", "slack.token", "slack.secret", "mail.password", "webhook.secret"} {
		secretFile(t, filepath.Join(dir, name), "a secret of "+name)
	}
	secretFile(t, filepath.Join(dir, "backout.dsn"), "sqlite:backout.db")
	load := func(source []byte) (any, error) {
		file := filepath.Join(dir, "backout.yml")
		secretFile(t, file, string(source))
		return config.Load(file)
	}
	r := newKeysReference(t, "config", "backout.yml", load, "../../receiver/config")
	r.schema = newSchema("backout configuration")
	fmt.Fprintf(&r.page, "# Configuration reference\n\n"+generatedNote, "the types in receiver/config/")
	r.page.WriteString("The file of `--config.file` says where the other programs are and who may call backout. Every key is optional, and an unknown\n" +
		"key is an error. Secrets are in files that only their owner may read; a relative path begins at the folder of the\n" +
		"configuration file. backout trusts no file that others can change, itself or through a folder above it. SIGHUP or\n" +
		"`POST /-/reload` reads the file again. Where the default is empty, nothing is set without the key. Durations are written as\n" +
		"Prometheus writes them: `5s`, `1h`. The examples are from [backout.yml](backout.yml), which has every key.\n")
	small := filepath.Join(dir, "small.yml")
	secretFile(t, small, "slack: {token_file: slack.token}\nmail: {host: mail.example.com, from: status@example.com}\n")
	r.smaller = append(r.smaller, r.read(small))
	r.sections(reflect.TypeFor[config.Config]())
	r.matchReader("", r.example)
	r.schema.allowNull()
	r.schema["type"] = []any{"object", "null"} // the file may be empty
	return r
}

func scenarioPage(t *testing.T) string {
	file := docsDir + "reference/scenario.yaml"
	r := newKeysReference(t, "yaml", "scenario.yaml", func(source []byte) (any, error) {
		return scenario.Parse(file, source)
	}, "../../remediation/scenario", "../../remediation")
	fmt.Fprintf(&r.page, "# Scenario reference\n\n"+generatedNote, "the types in remediation/scenario/")
	r.page.WriteString("The file of `backout test`: what a playbook is given, and what backout must do ([testing a playbook](../testing.md)). An unknown\n" +
		"key is an error, and where the default is empty, nothing is set without the key. Times count from the scenario's start and are written as Prometheus writes durations: `90s`, `5m`, `1h30m`. The\n" +
		"examples are from [scenario.yaml](scenario.yaml), which has every key.\n")
	small := filepath.Join(t.TempDir(), "small.yaml")
	secretFile(t, small, "events: [{at: 1m, do: thaw}]\nexpect: [{at: 5m, incident: none}, {at: 6m, firing: []}]\n")
	r.smaller = append(r.smaller, r.read(small))
	r.sections(reflect.TypeFor[scenario.Scenario]())
	return r.page.String()
}

func secretFile(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func newKeysReference(t *testing.T, tag, example string, load func([]byte) (any, error), dirs ...string) *keysReference {
	t.Helper()
	r := &keysReference{t: t, tag: tag, load: load, comments: map[string]string{}, values: map[string][]string{}}
	r.example = r.read(docsDir + "reference/" + example)
	for _, dir := range dirs {
		r.parse(dir)
	}
	return r
}

// read reads an example, which must load.
func (r *keysReference) read(name string) *yaml.Node {
	r.t.Helper()
	source, err := os.ReadFile(name)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.load(source); err != nil {
		r.t.Fatalf("%s: %v", name, err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(source, &doc); err != nil {
		r.t.Fatal(err)
	}
	return doc.Content[0]
}

// parse reads the comments of a package's fields, and the values of its enumerations.
func (r *keysReference) parse(dir string) {
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			r.t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				if s, ok := n.Type.(*ast.StructType); ok {
					for _, f := range s.Fields.List {
						for _, id := range f.Names {
							r.comments[file.Name.Name+"."+n.Name.Name+"."+id.Name] = f.Doc.Text()
						}
					}
				}
			case *ast.ValueSpec:
				if id, ok := n.Type.(*ast.Ident); ok && len(n.Values) == 1 {
					if lit, ok := n.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
						value, err := strconv.Unquote(lit.Value)
						if err != nil {
							r.t.Fatal(err)
						}
						of := file.Name.Name + "." + id.Name
						r.values[of] = append(r.values[of], value)
					}
				}
			}
			return true
		})
	}
}

func nameOf(t reflect.Type) string { return path.Base(t.PkgPath()) + "." + t.Name() }

// keyed are the fields of a struct that are keys, those of inlined structs too.
func (r *keysReference) keyed(t reflect.Type, yield func(in reflect.Type, f reflect.StructField, key []element)) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get(r.tag), ",")
		switch {
		case options == "inline":
			r.keyed(f.Type, yield)
		case name != "" && name != "-":
			var key []element
			for _, part := range strings.Split(name, ".") {
				key = append(key, element{name: part})
			}
			yield(t, f, key)
		}
	}
}

// sections writes the tables of the file: the keys at the top, then those below each.
func (r *keysReference) sections(t reflect.Type) {
	r.page.WriteString("\n## Top level\n")
	r.header()
	var groups []element
	r.keyed(t, func(in reflect.Type, f reflect.StructField, key []element) {
		_, inner := below(f.Type)
		if len(key) == 1 && (inner == nil || r.comment(in, f) != "") {
			r.row(key, in, f)
		}
		if (len(key) > 1 || inner != nil) && !slices.Contains(groups, key[0]) {
			groups = append(groups, key[0])
		}
	})
	for _, g := range groups {
		fmt.Fprintf(&r.page, "\n## %s\n", g.name)
		r.header()
		r.keyed(t, func(in reflect.Type, f reflect.StructField, key []element) {
			if key[0] != g {
				return
			}
			suffix, inner := below(f.Type)
			switch {
			case inner != nil:
				r.rows(slices.Concat(key, suffix), inner)
			case len(key) > 1:
				r.row(key, in, f)
			}
		})
	}
}

func (r *keysReference) header() {
	r.page.WriteString("\n| key | type | default | example | meaning |\n|---|---|---|---|---|\n")
}

// rows writes the keys of a struct, and of those below it.
func (r *keysReference) rows(at []element, t reflect.Type) {
	r.keyed(t, func(in reflect.Type, f reflect.StructField, key []element) {
		full := slices.Concat(at, key)
		r.row(full, in, f)
		if suffix, inner := below(f.Type); inner != nil {
			r.rows(slices.Concat(full, suffix), inner)
		}
	})
}

// below returns the struct that holds the keys below a value, nil where there are none.
func below(t reflect.Type) (suffix []element, inner reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		if t.Kind() == reflect.Slice {
			suffix = append(suffix, element{item: true})
		}
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[alerts.Rate](), reflect.TypeFor[alerts.KubernetesFlags](), reflect.TypeFor[config.Secret](), reflect.TypeFor[url.URL]():
		return nil, nil
	}
	if t.Kind() != reflect.Struct || !strings.Contains(t.PkgPath(), "locotoki") || t.Name() == "outgoingHeader" {
		return nil, nil
	}
	return suffix, t
}

func (r *keysReference) comment(in reflect.Type, f reflect.StructField) string {
	return strings.Join(strings.Fields(r.comments[nameOf(in)+"."+f.Name]), " ")
}

// row writes one key.
func (r *keysReference) row(key []element, in reflect.Type, f reflect.StructField) {
	r.t.Helper()
	meaning := r.comment(in, f)
	if meaning == "" {
		r.t.Errorf("%s: the field %s.%s has no comment; try: say what it means, and its unit", pathOf(key), nameOf(in), f.Name)
	}
	r.keys = append(r.keys, pathOf(key))
	last := key[len(key)-1].name
	meaning, def, computed := strings.Cut(meaning, " Default: ")
	meaning = sentence(meaning, f.Name, last)
	example, instances := r.exampleOf(key)
	if len(instances) == 0 {
		r.t.Errorf("%s: no example; try: write one into docs/reference", pathOf(key))
		return
	}
	shown := ""
	if _, inner := below(f.Type); inner == nil {
		shown = "`" + strings.ReplaceAll(flow(r.t, instances[0].value), "|", `\|`) + "`"
	}
	if found := r.found(example, key, instances); !computed || found == "required" {
		def = found
	}
	r.add(key, f.Type, meaning, strings.TrimSuffix(def, "."))
	fmt.Fprintf(&r.page, "| `%s` | %s | %s | %s | %s |\n", pathOf(key), r.typeText(f.Type, last)+r.unit(key, f.Type, meaning), tableCell(strings.TrimSuffix(def, ".")), shown, tableCell(meaning))
}

// unit is that of a number, from its meaning; a duration has its own in it.
func (r *keysReference) unit(key []element, t reflect.Type, meaning string) string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Float64 {
		return ""
	}
	for _, u := range []struct{ words, unit string }{{"in the indicator's unit", "in the indicator's unit"}, {"number of requests", "of requests"}, {"below 1", "from 0 to 1"}} {
		if strings.Contains(meaning, u.words) {
			return " " + u.unit
		}
	}
	r.t.Errorf("%s: its comment names no unit: %s", pathOf(key), meaning)
	return ""
}

// sentence is a comment without the field's name; the key replaces it.
func sentence(comment, field, key string) string {
	rest := strings.TrimPrefix(comment, field+" ")
	for _, verb := range []string{"is ", "are "} {
		if after, ok := strings.CutPrefix(rest, verb); ok {
			return strings.ToUpper(after[:1]) + after[1:]
		}
	}
	return "`" + key + "` " + rest
}

// typeText is a type in words, with the unit of a duration.
func (r *keysReference) typeText(t reflect.Type, key string) string {
	if strings.HasSuffix(key, "file") {
		return "file"
	}
	switch t {
	case reflect.TypeFor[model.Duration](), reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[alerts.Rate]():
		return "count/duration"
	case reflect.TypeFor[alerts.KubernetesFlags]():
		return "`env` or `{configmap: NAME}`"
	case reflect.TypeFor[*url.URL]():
		return "address"
	}
	if values := r.values[nameOf(t)]; len(values) > 0 {
		return "one of `" + strings.Join(values, "`, `") + "`"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return r.typeText(t.Elem(), key)
	case reflect.Slice:
		if _, inner := below(t); inner != nil {
			return "list"
		} else if t.Elem().Kind() == reflect.Struct {
			return "text by name" // headers
		}
		return "list of " + r.typeText(t.Elem(), key)
	case reflect.Map:
		return "text by name"
	case reflect.Struct:
		return "mapping"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "whole number"
	case reflect.Float64:
		return "number"
	case reflect.String:
		return "text"
	}
	r.t.Fatalf("no word for the type %s", t)
	return ""
}

// instance is one place of the example where a key stands.
type instance struct {
	in    *yaml.Node // the mapping
	index int        // of the key in it
	value *yaml.Node
	path  []any // names and indices
}

// instances finds a key in the example. Each is a place where the mapping around it is.
func (r *keysReference) instances(n *yaml.Node, key []element, at []any) []instance {
	var all []instance
	if key[0].item {
		for i, item := range n.Content {
			if a := key[0].action; a == "" || slices.ContainsFunc(item.Content, func(c *yaml.Node) bool { return c.Value == a }) {
				all = append(all, r.instances(item, key[1:], append(slices.Clone(at), i))...)
			}
		}
		return all
	}
	for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
		if n.Content[i].Value != key[0].name {
			continue
		}
		here := append(slices.Clone(at), key[0].name)
		if len(key) == 1 {
			return []instance{{n, i, n.Content[i+1], here}}
		}
		return r.instances(n.Content[i+1], key[1:], here)
	}
	return nil
}

// exampleOf is the first example that has a key, and where.
func (r *keysReference) exampleOf(key []element) (*yaml.Node, []instance) {
	for _, example := range append([]*yaml.Node{r.example}, r.smaller...) {
		if found := r.instances(example, key, nil); len(found) > 0 {
			return example, found
		}
	}
	return nil, nil
}

// found determines by experiment what holds without the key: "required" if the example
// is refused, otherwise the value that is used.
func (r *keysReference) found(whole *yaml.Node, key []element, instances []instance) string {
	for _, in := range instances {
		had := in.in.Content
		in.in.Content = slices.Delete(slices.Clone(had), in.index, in.index+2)
		source, err := yaml.Marshal(whole)
		if err != nil {
			r.t.Fatal(err)
		}
		loaded, err := r.load(source)
		in.in.Content = had
		if err == nil {
			return r.valueText(r.at(reflect.ValueOf(loaded), in.path))
		}
	}
	for _, example := range append(r.smaller, r.example) {
		if len(r.instances(example, key, nil)) < r.places(example, key[:len(key)-1]) {
			return "" // another place does without it
		}
	}
	return "required"
}

// unknownKey takes the keys that a mapping may have out of the error about one more.
var unknownKey = regexp.MustCompile(`unknown key "unheard-of" in .*; try: one of (.*)`)

// matchReader checks that the page has every key that the reader of the file knows. An
// unknown key in each mapping of the example makes the reader list them.
func (r *keysReference) matchReader(at string, n *yaml.Node) {
	if n.Kind == yaml.SequenceNode {
		r.matchReader(at+"[]", n.Content[0])
		return
	}
	prefix := strings.TrimPrefix(at+".", ".")
	var documented []string
	for _, k := range r.keys {
		if rest, ok := strings.CutPrefix(k, prefix); ok {
			name, _, _ := strings.Cut(rest, ".")
			name, _, _ = strings.Cut(name, "[")
			documented = append(documented, name)
		}
	}
	slices.Sort(documented)
	documented = slices.Compact(documented)
	if n.Kind != yaml.MappingNode || len(documented) == 0 {
		return
	}
	known := unknownKey.FindStringSubmatch(r.refusal(n, "unheard-of"))
	if known == nil {
		r.t.Fatalf("%s: an unknown key is not refused with those that are known", at)
	}
	for _, name := range strings.Split(known[1], ", ") {
		if !slices.Contains(documented, name) && !strings.Contains(r.refusal(n, name), "belongs under http_config") {
			r.t.Errorf("%s%s is read and has no place in the reference; try: a config tag and a comment on its field", prefix, name)
		}
	}
	for i := 0; i < len(n.Content); i += 2 {
		r.matchReader(prefix+n.Content[i].Value, n.Content[i+1])
	}
}

// refusal is what is said of the example with one more key.
func (r *keysReference) refusal(in *yaml.Node, name string) string {
	had := in.Content
	in.Content = append(slices.Clone(had), &yaml.Node{Kind: yaml.ScalarNode, Value: name}, &yaml.Node{Kind: yaml.ScalarNode, Value: "1"})
	source, err := yaml.Marshal(r.example)
	if err != nil {
		r.t.Fatal(err)
	}
	in.Content = had
	if _, err := r.load(source); err != nil {
		return err.Error()
	}
	return ""
}

// places counts the mappings of the example that could hold a key.
func (r *keysReference) places(n *yaml.Node, key []element) int {
	if len(key) == 0 {
		return 1
	}
	if !key[len(key)-1].item {
		return len(r.instances(n, key, nil))
	}
	count := 0
	last := key[len(key)-1]
	for _, list := range r.instances(n, key[:len(key)-1], nil) {
		for _, item := range list.value.Content {
			if last.action == "" || slices.ContainsFunc(item.Content, func(c *yaml.Node) bool { return c.Value == last.action }) {
				count++
			}
		}
	}
	return count
}

// at is the value at a path, the zero Value where there is none.
func (r *keysReference) at(v reflect.Value, at []any) reflect.Value {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	if len(at) == 0 || !v.IsValid() {
		return v
	}
	if i, ok := at[0].(int); ok {
		return r.at(v.Index(i), at[1:])
	}
	if v.Kind() == reflect.Map {
		return reflect.Value{}
	}
	if step, ok := v.Interface().(alerts.Step); ok {
		if params := r.at(reflect.ValueOf(step.Params), at); params.IsValid() {
			return params
		}
	}
	var value reflect.Value
	r.keyed(v.Type(), func(in reflect.Type, f reflect.StructField, key []element) {
		if len(key) > len(at) || value.IsValid() || !f.IsExported() {
			return
		}
		for i, e := range key {
			if at[i] != e.name {
				return
			}
		}
		from := v
		if in != v.Type() {
			from = v.FieldByName(in.Name()) // inlined
		}
		value = r.at(from.FieldByIndex(f.Index), at[len(key):])
	})
	return value
}

// valueText is a default as the file would have it; "" for none.
func (r *keysReference) valueText(v reflect.Value) string {
	if !v.IsValid() || v.IsZero() && v.Kind() != reflect.Bool || v.Kind() == reflect.Slice || v.Kind() == reflect.Map || v.Kind() == reflect.Struct && v.Type() != reflect.TypeFor[alerts.Rate]() {
		return ""
	}
	if d, ok := v.Interface().(time.Duration); ok {
		return "`" + model.Duration(d).String() + "`"
	}
	return fmt.Sprintf("`%v`", v.Interface())
}

// flow is a value on one line.
func flow(t *testing.T, n *yaml.Node) string {
	t.Helper()
	plain := *n
	plain.HeadComment, plain.LineComment, plain.FootComment = "", "", ""
	if plain.Kind != yaml.ScalarNode {
		plain.Style = yaml.FlowStyle
	}
	b, err := yaml.Marshal(&plain)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(b)), " ")
}
