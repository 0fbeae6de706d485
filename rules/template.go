package rules

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"
)

//go:embed templates
var templates embed.FS

// fill executes a template. Its actions are in [[ and ]], because Alertmanager
// and Grafana have templates of their own in {{ and }}.
func fill(name string, data any) ([]byte, error) {
	t, err := template.New(name).Delims("[[", "]]").Funcs(template.FuncMap{
		"json": marshalJSON, "yaml": yamlScalar, "refID": refID,
	}).ParseFS(templates, "templates/"+name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, data)
	return b.Bytes(), err
}

// marshalJSON writes expressions as they are, not with < and > escaped.
func marshalJSON(v any) (string, error) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return strings.TrimSpace(b.String()), err
}

// yamlScalar quotes a text where YAML needs that, and keeps it on one line.
func yamlScalar(text any) (string, error) {
	s := fmt.Sprint(text)
	if strings.Contains(s, "\n") {
		return marshalJSON(s)
	}
	b, err := yaml.Marshal(s)
	return strings.TrimSuffix(string(b), "\n"), err
}
