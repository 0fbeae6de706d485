package receiver

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// LaunchDarkly is the account that keeps flags.
type LaunchDarkly struct {
	// URL is LaunchDarkly's address without the API's path, https or loopback.
	URL string `config:"url"`
	// Token is a file that holds an access token.
	Token Secret `config:"token_file"`
}

// launchDarklyURL is where the instance for everybody is; others have their own.
const launchDarklyURL = "https://app.launchdarkly.com"

// launchDarkly reads who keeps flags; nil where that is wrong.
func (r *configReader) launchDarkly(n *yaml.Node) *LaunchDarkly {
	before := len(r.mistakes)
	l, file, fileNode := &LaunchDarkly{URL: launchDarklyURL}, "", n
	r.fields(n, "launchdarkly",
		field{"url", func(n *yaml.Node) {
			u := r.url(n, "launchdarkly.url")
			if u == nil {
				return
			}
			if l.URL = strings.TrimSuffix(u.String(), "/"); u.Scheme != "https" && !isLoopback(u.Hostname()) {
				r.fail(n, launchDarklyURL, "launchdarkly.url must be https, since the token goes there")
			}
		}},
		field{"token_file", func(n *yaml.Node) { file, fileNode = r.text(n, "launchdarkly.token_file"), n }})
	if len(r.mistakes) > before {
		return nil
	}
	if file == "" {
		r.fail(n, "{token_file: launchdarkly.token}", "launchdarkly needs token_file")
		return nil
	}
	token, err := readToken(r.path(file))
	if err != nil {
		r.fail(fileNode, secretTry(err, "write the access token into it as one line, readable by its owner only"), "launchdarkly.token_file: %v", err)
		return nil
	}
	l.Token = NewSecret(token)
	return l
}

// Same tells whether both are one account and one token; either may be nil.
func (l *LaunchDarkly) Same(other *LaunchDarkly) bool {
	if l == nil || other == nil {
		return l == other
	}
	return *l == *other
}
