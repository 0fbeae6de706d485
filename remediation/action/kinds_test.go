package action

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

type noSchemas struct{}

// Rollback refuses with all that it was told.
func (noSchemas) Rollback(s remediation.SchemaRollback) (remediation.Action, error) {
	s.Tolerated = nil
	return nil, fmt.Errorf("no schema: %+v", s)
}

func TestNoKindPanicsOnParametersThatAreEmptyOrTellsASecret(t *testing.T) {
	const secret = "hunter2"
	file := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(file, []byte("postgres://u:"+secret+"@127.0.0.1/db"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tools := range map[string]Tools{
		"all tools":       {Flags: &noFlags{}, LaunchDarkly: &noFlags{}, Images: &noImages{}, Schemas: noSchemas{}},
		"what may be nil": {Flags: &noFlags{}, Images: &noImages{}},
	} {
		kinds := Kinds(tools)
		var listed []alerts.ActionKind
		for _, k := range kinds {
			listed = append(listed, k)
		}
		standard, err := alerts.Default(listed)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range kinds {
			params := []any{k.NewParams()}
			if k.Name() == "schema_rollback" {
				params = append(params, &schemaRollbackParams{DSNFile: file, Dir: "x"})
			}
			for _, p := range params {
				for _, pb := range []*alerts.Playbook{{}, playbook(), kept(), standard} {
					var said []string
					for _, problem := range k.CheckParams(pb, p) {
						said = append(said, problem.Key, problem.Problem, problem.Try)
					}
					_, err := k.Bind(pb, p)
					said = append(said, k.Target(pb, p), fmt.Sprint(err))
					if told := strings.Join(said, "\n"); strings.Contains(told, secret) {
						t.Errorf("%s with %s: %s", k.Name(), name, told)
					}
				}
			}
			if k.Target(standard, k.NewParams()) == "" {
				t.Errorf("%s has no target", k.Name())
			}
		}
	}
}
