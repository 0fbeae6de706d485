package config

import (
	"fmt"
	"maps"
	"slices"
)

// Changes says in what this configuration lets others in than the one before it:
// who may do what from where. It has names and roles, and no secret.
func (c *Config) Changes(before *Config) (changes []string) {
	is, was := map[string]Token{}, map[string]Token{}
	for _, t := range c.Tokens {
		is[t.Name] = t
	}
	for _, t := range before.Tokens {
		was[t.Name] = t
	}
	changes = differences("token", is, was,
		func(t Token) string { return string(t.Role) }, func(t Token) any { return t.Secret })
	users := func(s *Slack) map[string]SlackUser {
		all := map[string]SlackUser{}
		if s.Answers() {
			for _, u := range s.Users {
				all[u.Name] = u
			}
		}
		return all
	}
	changes = append(changes, differences("Slack user", users(c.Slack), users(before.Slack),
		func(u SlackUser) string { return u.ID }, func(SlackUser) any { return nil })...)
	if c.Slack.Answers() && before.Slack.Answers() && c.Slack.SigningSecret != before.Slack.SigningSecret {
		changes = append(changes, "Slack has a new signing secret")
	}
	site := func(c *Config) string {
		if c.ExternalURL == nil {
			return "none"
		}
		return c.ExternalURL.Redacted()
	}
	if is, was := site(c), site(before); is != was {
		changes = append(changes, fmt.Sprintf("external_url is %s, was %s", is, was))
	}
	return changes
}

// differences says which of some named things were added, removed or changed; shown is
// what is said of one, secret what is only compared.
func differences[T any](what string, is, was map[string]T, shown func(T) string, secret func(T) any) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(is)) {
		now := is[name]
		switch before, had := was[name]; {
		case !had:
			out = append(out, fmt.Sprintf("%s %s (%s) added", what, name, shown(now)))
		case shown(before) != shown(now):
			out = append(out, fmt.Sprintf("%s %s is %s, was %s", what, name, shown(now), shown(before)))
		case secret(before) != secret(now):
			out = append(out, fmt.Sprintf("%s %s has a new secret", what, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if _, has := is[name]; !has {
			out = append(out, fmt.Sprintf("%s %s (%s) removed", what, name, shown(was[name])))
		}
	}
	return out
}
