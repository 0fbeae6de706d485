package config

import (
	"net/url"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Slack is the workspace where the team is told, and may answer.
type Slack struct {
	// URL is the API's address, https or loopback.
	URL string `config:"url"`
	// Token is a file that holds the bot's token, which begins with xoxb-.
	Token Secret `config:"token_file"`
	// SigningSecret is a file that holds the app's signing secret. Default: nobody can
	// answer from Slack.
	SigningSecret Secret `config:"signing_secret_file"`
	// Users are the people who may approve and deny from Slack. Needed with
	// signing_secret_file.
	Users []SlackUser `config:"users"`
}

// SlackUser is somebody who may approve and deny from Slack.
type SlackUser struct {
	// ID is the member ID from the user's profile in Slack.
	ID string `config:"id"`
	// Name is the actor in the audit log, after "slack:".
	Name string `config:"name"`
}

// SlackURL is the API's address, except for governments.
const SlackURL = "https://slack.com/api"

var slackUserID = regexp.MustCompile(`^[UW][A-Z0-9]{2,30}$`)

// Answers reports whether people may answer from Slack.
func (s *Slack) Answers() bool { return s != nil && s.SigningSecret != Secret{} }

// slack reads the Slack workspace; nil if it has mistakes.
func (r *configReader) slack(n *yaml.Node) *Slack {
	before := len(r.mistakes)
	s := &Slack{URL: SlackURL}
	var token, signing *yaml.Node
	r.fields(n, "slack",
		field{"url", func(n *yaml.Node) { r.secretAddress(n, "slack.url", SlackURL, "token", &s.URL) }},
		field{"token_file", func(n *yaml.Node) { token = n }},
		field{"signing_secret_file", func(n *yaml.Node) { signing = n }},
		field{"users", func(n *yaml.Node) { s.Users = r.slackUsers(n) }})
	if token == nil && len(r.mistakes) == before {
		r.fail(n, "{token_file: slack.token}", "slack needs token_file")
	}
	if (signing == nil) != (len(s.Users) == 0) && len(r.mistakes) == before {
		r.fail(n, "{token_file: slack.token, signing_secret_file: slack.secret, users: [{id: U012AB3CD, name: ann}]}",
			"slack needs both signing_secret_file and users, or neither: the secret proves that an answer comes from Slack, the users are those who may answer")
	}
	s.Token = r.secretFile(token, "slack.token_file", "the bot's token, which begins with xoxb-,")
	s.SigningSecret = r.secretFile(signing, "slack.signing_secret_file", "the app's signing secret")
	if len(r.mistakes) > before {
		return nil
	}
	return s
}

func (r *configReader) slackUsers(n *yaml.Node) []SlackUser {
	var users []SlackUser
	ids, names := map[string]bool{}, map[string]bool{}
	r.each(n, "slack.users", func(n *yaml.Node) {
		var u SlackUser
		r.fields(n, "a user of slack",
			field{"id", func(n *yaml.Node) { u.ID = r.text(n, "a Slack user's id") }},
			field{"name", func(n *yaml.Node) { u.Name = r.text(n, "a Slack user's name") }})
		switch {
		case u.ID == "" || u.Name == "":
			r.fail(n, "{id: U012AB3CD, name: ann}", "a user of slack needs id and name")
		case !slackUserID.MatchString(u.ID):
			r.fail(n, "the member ID from the user's profile in Slack, such as U012AB3CD", "invalid Slack user ID %q", u.ID)
		case !tokenName.MatchString(u.Name):
			r.fail(n, "letters, digits and . _ @ -, 64 at most", "invalid Slack user name %q", u.Name)
		case ids[u.ID] || names[u.Name]:
			r.fail(n, "each of them once", "the Slack user %s, or the name %q, is listed twice: the audit log could not tell them apart", u.ID, u.Name)
		default:
			users = append(users, u)
		}
		ids[u.ID], names[u.Name] = true, true
	})
	return users
}

// SameChat reports whether both post to one workspace by one token; either may be nil.
func (s *Slack) SameChat(other *Slack) bool {
	if s == nil || other == nil {
		return s == other
	}
	return s.URL == other.URL && s.Token == other.Token && s.Answers() == other.Answers()
}

// User is the configured user with that id, nil if there is none.
func (s *Slack) User(id string) *SlackUser {
	for i := range s.Users {
		if s.Users[i].ID == id {
			return &s.Users[i]
		}
	}
	return nil
}

// hooksHost is where Slack takes answers to interactions.
const hooksHost = "hooks.slack.com"

// IsSlack reports whether an address is Slack's: that for answers, or the API's host.
func (s *Slack) IsSlack(address string) bool {
	u, err := url.Parse(address)
	api, aerr := url.Parse(s.URL)
	if err != nil || aerr != nil || u.User != nil {
		return false
	}
	if strings.EqualFold(u.Host, api.Host) && u.Scheme == api.Scheme {
		return true
	}
	return u.Scheme == "https" && (strings.EqualFold(u.Host, hooksHost) || strings.EqualFold(u.Host, "hooks."+api.Host))
}
