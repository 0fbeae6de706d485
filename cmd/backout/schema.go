package main

import (
	"context"

	"github.com/locotoki/backout/docs"
)

func (c *commands) addSchema() {
	clause := c.app.Command("schema", "Print the JSON Schema of a file, with which editors complete its keys and mark mistakes. backout check finds more: what a schema cannot express.")
	file := clause.Arg("file", "playbook or config.").Required().HintOptions("playbook", "config").Enum("playbook", "config")
	c.add(clause, func(context.Context) error {
		if *file == "config" {
			return c.print(docs.ConfigurationSchema)
		}
		return c.print(docs.PlaybookSchema)
	})
}
