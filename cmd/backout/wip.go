package main

import (
	"context"
	"errors"

	"github.com/alecthomas/kingpin/v2"
	"github.com/locotoki/backout/remediation"
)

func (c *commands) addServe()                           {}
func (c *commands) addCheck()                           {}
func (c *commands) addRules()                           {}
func (c *commands) addAuditVerify(_ *kingpin.CmdClause) {}
func openForReading(context.Context, string) (remediation.Store, error) {
	return nil, errors.New("wip")
}

func (c *commands) printEntryLines(entries []remediation.Entry) error { return nil }
