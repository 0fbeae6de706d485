// Package docs holds the generated pages that the program itself prints. make generate
// writes them; cmd/backout prints them.
package docs

import _ "embed" // the schemas

// PlaybookSchema is the JSON Schema of a playbook, draft 7.
//
//go:embed reference/playbook.schema.json
var PlaybookSchema string

// ConfigurationSchema is the JSON Schema of backout's configuration, draft 7.
//
//go:embed reference/configuration.schema.json
var ConfigurationSchema string

// OpenAPI is the description of the server's API, OpenAPI 3.1.
//
//go:embed reference/openapi.json
var OpenAPI string

// OutputSchema is the JSON Schema of what commands print with --output=json, draft 2020-12.
//
//go:embed reference/output.schema.json
var OutputSchema string
