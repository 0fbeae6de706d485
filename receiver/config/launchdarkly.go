package config

import "go.yaml.in/yaml/v3"

// LaunchDarkly is the account that keeps flags.
type LaunchDarkly struct {
	// URL is LaunchDarkly's address without the API's path, https or loopback.
	URL string `config:"url"`
	// Token is a file that holds an access token.
	Token Secret `config:"token_file"`
}

// launchDarklyURL is the public instance; others have their own.
const launchDarklyURL = "https://app.launchdarkly.com"

// launchDarkly reads the LaunchDarkly account; nil if it has mistakes.
func (r *configReader) launchDarkly(n *yaml.Node) *LaunchDarkly {
	before := len(r.mistakes)
	l := &LaunchDarkly{URL: launchDarklyURL}
	var token *yaml.Node
	r.fields(n, "launchdarkly",
		field{"url", func(n *yaml.Node) { r.secretAddress(n, "launchdarkly.url", launchDarklyURL, "token", &l.URL) }},
		field{"token_file", func(n *yaml.Node) { token = n }})
	if token == nil && len(r.mistakes) == before {
		r.fail(n, "{token_file: launchdarkly.token}", "launchdarkly needs token_file")
	}
	l.Token = r.secretFile(token, "launchdarkly.token_file", "the access token")
	if len(r.mistakes) > before {
		return nil
	}
	return l
}

// Same reports whether both are one account and one token; either may be nil.
func (l *LaunchDarkly) Same(other *LaunchDarkly) bool {
	if l == nil || other == nil {
		return l == other
	}
	return *l == *other
}
