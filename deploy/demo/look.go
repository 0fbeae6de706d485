package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/locotoki/backout/remediation/audit"
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

// askEach decodes what each replica of the service answers. They must agree.
func askEach[T any](ctx context.Context, s *stack, path string, value func(answer T) string) (string, error) {
	replicas, err := s.replicas(ctx)
	if err != nil {
		return "", err
	}
	first := ""
	for i, address := range replicas {
		text, err := fetch(ctx, s.client, "http://"+address+path, "")
		if err != nil {
			return "", err
		}
		var answer T
		if err := json.Unmarshal(text, &answer); err != nil {
			return "", fmt.Errorf("%s%s: %w", address, path, err)
		}
		got := value(answer)
		if i > 0 && got != first {
			return "", fmt.Errorf("one replica answers %s with %q, another with %q", path, first, got)
		}
		first = got
	}
	return first, nil
}

// flag is the flag's value in the running service, by its own word.
func (s *stack) flag(ctx context.Context) (string, error) {
	return askEach(ctx, s, "/flags", func(flags map[string]string) string { return flags[flagName] })
}

// version is the running service's, by its own word.
func (s *stack) version(ctx context.Context) (string, error) {
	return askEach(ctx, s, "/version", func(answer struct{ Version string }) string { return answer.Version })
}

// answers is the status that the service answers a path with.
func (s *stack) answers(ctx context.Context, path string) (status int, err error) {
	replicas, err := s.replicas(ctx)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+replicas[0]+path, nil)
	if err != nil {
		return 0, err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// rule is a rule as Prometheus has it loaded.
type rule struct {
	Name           string
	Query          string
	Labels         map[string]string
	LastEvaluation time.Time
	Alerts         []struct{ State, Value string }
}

// rules are the rules of a type (record or alert) for a trigger.
func (s *stack) rules(ctx context.Context, kind, trigger string) ([]rule, error) {
	var answer struct {
		Data struct{ Groups []struct{ Rules []rule } }
	}
	if err := s.ask(ctx, "prometheus", "/api/v1/rules?type="+kind, &answer); err != nil {
		return nil, err
	}
	var out []rule
	for _, g := range answer.Data.Groups {
		for _, r := range g.Rules {
			if r.Labels["trigger"] == trigger {
				out = append(out, r)
			}
		}
	}
	return out, nil
}

// recording returns the expression that a generated recording holds.
func (s *stack) recording(ctx context.Context, name, trigger string) (string, error) {
	rules, err := s.rules(ctx, "record", trigger)
	if err != nil {
		return "", err
	}
	for _, r := range rules {
		if r.Name == name {
			return r.Query, nil
		}
	}
	return "", fmt.Errorf("no recording %s of trigger %s in Prometheus", name, trigger)
}

// alertOf returns the trigger's alerting rule and its alert's state and value,
// "" where it has no alert.
func (s *stack) alertOf(ctx context.Context, trigger string) (r rule, state, value string, err error) {
	rules, err := s.rules(ctx, "alert", trigger)
	if err != nil {
		return rule{}, "", "", err
	}
	for _, r := range rules {
		for _, a := range r.Alerts {
			return r, a.State, a.Value, nil
		}
	}
	return rule{}, "", "", nil
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
	entries []audit.Entry
}

// refresh reads what has been added.
func (l *log) refresh(ctx context.Context) error {
	for {
		var after int64
		if n := len(l.entries); n > 0 {
			after = l.entries[n-1].Seq
		}
		var page struct{ Entries []audit.Entry }
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
func (l *log) find(fits func(e *audit.Entry) bool) *audit.Entry {
	for i := range l.entries {
		if fits(&l.entries[i]) {
			return &l.entries[i]
		}
	}
	return nil
}

// text is a string of an entry's detail, "" where there is none.
func text(e *audit.Entry, key string) string {
	s, _ := e.Detail[key].(string)
	return s
}
