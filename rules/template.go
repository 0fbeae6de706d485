package rules

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"
)

//go:embed templates/alertmanager.yml
var alertmanagerTemplate string

// fillAlertmanager executes the template. Its actions are in [[ and ]], because
// Alertmanager has templates of its own in {{ and }}.
func fillAlertmanager(data any) ([]byte, error) {
	t, err := template.New("alertmanager.yml").Delims("[[", "]]").Funcs(template.FuncMap{"yaml": yamlScalar}).Parse(alertmanagerTemplate)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, data)
	return b.Bytes(), err
}

// yamlScalar quotes a text where YAML needs that, and keeps it on one line.
func yamlScalar(text any) (string, error) {
	s := fmt.Sprint(text)
	if strings.Contains(s, "\n") {
		b, err := json.Marshal(s)
		return string(b), err
	}
	b, err := yaml.Marshal(s)
	return strings.TrimSuffix(string(b), "\n"), err
}
