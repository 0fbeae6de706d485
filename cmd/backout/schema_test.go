package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/promslog"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/docs"
	"github.com/locotoki/backout/receiver/config"
)

func compileSchema(t *testing.T, text string) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// bySchema is what an editor with the schema says of a file; nil where it finds nothing.
func bySchema(schema *jsonschema.Schema, source []byte) error {
	var content any
	if err := yaml.Unmarshal(source, &content); err != nil {
		return err
	}
	text, err := json.Marshal(content)
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// yamlFiles are all YAML files of the checkout, those in archives of scripts too.
func yamlFiles(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if name := d.Name(); err == nil && strings.HasPrefix(name, ".") && name != ".." {
				return fs.SkipDir
			}
			return err
		}
		switch filepath.Ext(path) {
		case ".yaml", ".yml":
			files[path], err = os.ReadFile(path)
			return err
		case ".txtar":
			archive, err := txtar.ParseFile(path)
			if err != nil {
				return err
			}
			for _, f := range archive.Files {
				if ext := filepath.Ext(f.Name); ext == ".yaml" || ext == ".yml" {
					files[path+":"+f.Name] = f.Data
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// What loads is valid by the schema. Of what is refused, testdata/playbooks/schema.want
// says what a schema sees: the rest is left to backout check.
func TestThePlaybookSchemaAcceptsWhatLoads(t *testing.T) {
	kinds, err := actionKinds(config.Default(), nil, promslog.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kinds.Close(); err != nil {
			t.Error(err)
		}
	})
	schema := compileSchema(t, docs.PlaybookSchema)
	var seen, unseen []string
	loaded := 0
	for path, source := range yamlFiles(t) {
		_, err := alerts.Parse(filepath.Base(path), source, playbookKinds(kinds.list))
		mistake := bySchema(schema, source)
		switch {
		case err == nil && mistake != nil:
			t.Errorf("%s loads, and by the schema: %v", path, mistake)
		case err == nil:
			loaded++
		case filepath.Base(filepath.Dir(path)) != "bad":
		case mistake != nil:
			seen = append(seen, filepath.Base(path))
		default:
			unseen = append(unseen, filepath.Base(path))
		}
	}
	if loaded < 30 {
		t.Errorf("only %d playbooks load", loaded)
	}
	slices.Sort(seen)
	slices.Sort(unseen)
	got := fmt.Sprintf("A schema sees that these are wrong:\n%s\n\nOnly backout check sees that these are wrong:\n%s\n", strings.Join(seen, "\n"), strings.Join(unseen, "\n"))
	const file = "../../testdata/playbooks/schema.want"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil { //nolint:gosec // a golden file
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != got {
		t.Errorf("%v, got:\n%s\nwant:\n%s", err, got, want)
	}
}

func TestTheConfigurationSchemaAcceptsWhatLoads(t *testing.T) {
	schema := compileSchema(t, docs.ConfigurationSchema)
	good := map[string][]byte{"empty keys": []byte("prometheus:\ndocker: {projects: }\n"), "no key": nil}
	for path, source := range yamlFiles(t) {
		if strings.HasSuffix(path, "backout.yml") && !strings.Contains(path, "deploy/demo") { // a template
			good[path] = source
		}
	}
	for name, source := range map[string]string{
		"a header": "prometheus: {headers: {X-Scope-OrgID: [shop, 7], X-Api-Key: {file: s}}}", "Prometheus's own": "alertmanager: {http_config: {tls_config: {ca_file: ca.pem}}}",
		"a number for text": "slack: {token_file: 1}",
	} {
		good[name] = []byte(source)
	}
	if len(good) < 15 {
		t.Errorf("only %d configurations", len(good))
	}
	for name, source := range good {
		if err := bySchema(schema, source); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, source := range map[string]string{
		"an unknown key": "promtheus: {}", "one below": "docker: {hosts: unix:///x}", "a list for a mapping": "prometheus: [http://127.0.0.1:9090]",
		"an unknown role": "tokens: [{name: a, role: admin, file: a}]", "a token without a file": "tokens: [{name: a, role: viewer}]",
		"no duration": "prometheus: {timeout: 5}", "a text for a number": "mail: {host: m, from: a@b.example, port: many}", "a header's file": "prometheus: {headers: {X-A: {files: s}}}",
	} {
		if err := bySchema(schema, []byte(source)); err == nil {
			t.Errorf("%s is valid by the schema", name)
		}
	}
}
