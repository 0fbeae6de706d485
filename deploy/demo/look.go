package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/locotoki/backout/remediation"
)

// ask decodes what an address of one of the stack's programs answers.
func (s *stack) ask(ctx context.Context, name, path string, out any) error {
	token := ""
	if name == "backout" {
		token = s.token["looker"]
	}
	text, err := fetch(ctx, s.client, s.url(name)+path, token)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s%s: %w", s.url(name), path, err)
	}
	return nil
}

// flag is the flag's value in the running container, by the service's own word.
func (s *stack) flag(ctx context.Context) (string, error) {
	var flags map[string]string
	err := s.ask(ctx, "service", "/flags", &flags)
	return flags[flagName], err
}

// alert is an alert as Prometheus has it.
type alert struct {
	rule, state string
	// since is when its condition became true; seen when the rule was last evaluated.
	since, seen time.Time
	value       string
}

// alertOf returns the alert of a trigger, or nil where it is neither pending nor firing.
func (s *stack) alertOf(ctx context.Context, trigger string) (*alert, error) {
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct {
					Name           string
					Labels         map[string]string
					LastEvaluation time.Time
					Alerts         []struct {
						Labels   map[string]string
						State    string
						ActiveAt time.Time
						Value    string
					}
				}
			}
		}
	}
	if err := s.ask(ctx, "prometheus", "/api/v1/rules?type=alert", &answer); err != nil {
		return nil, err
	}
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			for _, a := range r.Alerts {
				if a.Labels["trigger"] == trigger {
					return &alert{rule: r.Name, state: a.State, since: a.ActiveAt, seen: r.LastEvaluation, value: a.Value}, nil
				}
			}
		}
	}
	return nil, nil
}

// query returns the one value of an expression, false where it has none.
func (s *stack) query(ctx context.Context, expr string) (string, bool, error) {
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := s.ask(ctx, "prometheus", "/api/v1/query?query="+url.QueryEscape(expr), &answer); err != nil {
		return "", false, err
	}
	if len(answer.Data.Result) == 0 {
		return "", false, nil
	}
	v, ok := answer.Data.Result[0].Value[1].(string)
	return v, ok, nil
}

// log follows backout's audit log over its API.
type log struct {
	stack   *stack
	entries []remediation.Entry
}

// refresh reads what has been added.
func (l *log) refresh(ctx context.Context) error {
	for {
		var after int64
		if n := len(l.entries); n > 0 {
			after = l.entries[n-1].Seq
		}
		var page struct{ Entries []remediation.Entry }
		if err := l.stack.ask(ctx, "backout", fmt.Sprintf("/api/v1/audit?limit=1000&after=%d", after), &page); err != nil {
			return err
		}
		l.entries = append(l.entries, page.Entries...)
		if len(page.Entries) == 0 {
			return nil
		}
	}
}

// find returns the first entry that fits, or nil.
func (l *log) find(fits func(e *remediation.Entry) bool) *remediation.Entry {
	for i := range l.entries {
		if fits(&l.entries[i]) {
			return &l.entries[i]
		}
	}
	return nil
}

// text is a string of an entry's detail, "" where there is none.
func text(e *remediation.Entry, key string) string {
	s, _ := e.Detail[key].(string)
	return s
}
