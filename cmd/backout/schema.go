package main

import (
	"context"

	"github.com/locotoki/backout/docs"
)

func (c *commands) addSchema() {
	clause := c.app.Command("schema", "Print the JSON Schema of a file, with which editors complete its keys and mark mistakes, or of what a server and commands answer. backout check finds more in a file: what a schema cannot express.")
	schemas := map[string]string{"playbook": docs.PlaybookSchema, "config": docs.ConfigurationSchema, "api": docs.OpenAPI, "output": docs.OutputSchema}
	file := c.enumArg(clause, "file", "playbook, config, api (OpenAPI of the server), or output (of --output=json).", "playbook", "config", "api", "output")
	c.add(clause, func(context.Context) error {
		return c.print(schemas[*file])
	})
}
