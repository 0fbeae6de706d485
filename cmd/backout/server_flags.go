package main

import (
	"cmp"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/cmd/backout/client"
)

// serverFlags say which server a command talks to, and with which token.
type serverFlags struct {
	url       *string
	tokenFile *string
	insecure  *bool
	env       func(string) string
}

func (c *commands) serverFlags(clause *kingpin.CmdClause) serverFlags {
	return serverFlags{
		url: clause.Flag("url", "Address of a running `backout serve`. Default: $BACKOUT_URL, else "+client.DefaultURL+".").
			PlaceHolder("URL").String(),
		tokenFile: clause.Flag("token-file", "File with a token for that server. Default: $BACKOUT_TOKEN_FILE.").
			PlaceHolder("FILE").String(),
		insecure: clause.Flag("insecure-http", "Send the token over plain http to other machines too. Anyone on the network path can read it.").Bool(),
		env:      c.env,
	}
}

// client returns a client of the server that the flags or the environment name.
func (f serverFlags) client() (*client.Client, error) {
	return client.New(cmp.Or(*f.url, f.env("BACKOUT_URL"), client.DefaultURL), cmp.Or(*f.tokenFile, f.env("BACKOUT_TOKEN_FILE")), *f.insecure)
}
