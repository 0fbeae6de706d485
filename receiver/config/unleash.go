package config

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// Unleash is the server that keeps flags.
type Unleash struct {
	// URL is the server's address without /api, https or loopback. A hosted
	// server's address includes its instance.
	URL string `config:"url"`
	// Token is a file that holds an API token which may change flags: an admin token, or
	// a user's personal access token.
	Token Secret `config:"token_file"`
}

// unleash reads the Unleash server; nil if it has mistakes.
func (r *configReader) unleash(n *yaml.Node) *Unleash {
	const example = "https://unleash.example.com"
	before := len(r.mistakes)
	u := &Unleash{}
	var address, token *yaml.Node
	r.fields(n, "unleash",
		field{"url", func(n *yaml.Node) {
			address = n
			r.secretAddress(n, "unleash.url", example, "token", &u.URL)
			if short, ends := strings.CutSuffix(u.URL, "/api"); ends {
				r.fail(n, short, "unleash.url ends in /api, which backout adds itself")
			}
		}},
		field{"token_file", func(n *yaml.Node) { token = n }})
	if (address == nil || token == nil) && len(r.mistakes) == before {
		r.fail(n, "{url: "+example+", token_file: unleash.token}", "unleash needs url and token_file")
	}
	u.Token = r.secretFile(token, "unleash.token_file", "the API token")
	if len(r.mistakes) > before {
		return nil
	}
	return u
}

// Same reports whether both are one server and one token; either may be nil.
func (u *Unleash) Same(other *Unleash) bool {
	if u == nil || other == nil {
		return u == other
	}
	return *u == *other
}
