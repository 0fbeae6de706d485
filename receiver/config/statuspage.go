package config

import (
	"regexp"

	"go.yaml.in/yaml/v3"
)

// Statuspage is a page of Atlassian Statuspage that follows the built-in page.
type Statuspage struct {
	// URL is the API's address without its version, https or loopback.
	URL string `config:"url"`
	// Page is the page's id.
	Page string `config:"page"`
	// Key is a file that holds the API key.
	Key Secret `config:"api_key_file"`
}

// statuspageURL is where Atlassian has the API.
const statuspageURL = "https://api.statuspage.io"

var statuspageID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// statuspage reads the page of Atlassian Statuspage; nil if it has mistakes.
func (r *configReader) statuspage(n *yaml.Node) *Statuspage {
	before := len(r.mistakes)
	s := &Statuspage{URL: statuspageURL}
	var key *yaml.Node
	r.fields(n, "statuspage",
		field{"url", func(n *yaml.Node) { r.secretAddress(n, "statuspage.url", statuspageURL, "key", &s.URL) }},
		field{"page", func(n *yaml.Node) {
			if s.Page = r.text(n, "statuspage.page"); s.Page != "" && !statuspageID.MatchString(s.Page) {
				r.fail(n, "the ID from the page's API settings, such as kctbh9vrtdwd", "invalid page ID %q", s.Page)
			}
		}},
		field{"api_key_file", func(n *yaml.Node) { key = n }})
	if (s.Page == "" || key == nil) && len(r.mistakes) == before {
		r.fail(n, "{page: kctbh9vrtdwd, api_key_file: statuspage.key}", "statuspage needs page and api_key_file")
	}
	s.Key = r.secretFile(key, "statuspage.api_key_file", "the API key")
	if len(r.mistakes) > before {
		return nil
	}
	return s
}

// Same reports whether both name one page and one key; either may be nil.
func (s *Statuspage) Same(other *Statuspage) bool {
	if s == nil || other == nil {
		return s == other
	}
	return *s == *other
}
