package launchdarkly

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

const token = "api-3f1c-hush-9b2e"

// fake is LaunchDarkly's API as documented, with one flag in two environments.
// What it does not know fails the test.
type fake struct {
	t   *testing.T
	url string

	mu       sync.Mutex
	now      time.Time
	waited   []time.Duration
	envs     map[string]*fakeEnv
	archived bool
	// own is what the token may see of itself, nil for nothing.
	own map[string]any
	// approvals: changes need an approval.
	approvals bool
	requests  []string // method, path and query
	comments  []string // of the patches that were taken, with their instructions
	bodies    []string // of those patches
	// scheduled: a change is planned that any other conflicts with.
	scheduled bool
	// served are the variations, where they are others.
	served  []any
	changes int // by anybody
	// answers, by the number of the request from now on (the first is 1): what to
	// do instead of, or after, what was asked.
	answers map[int]answer
}

type fakeEnv struct {
	On           bool  `json:"on"`
	Archived     bool  `json:"archived"`
	OffVariation *int  `json:"offVariation,omitempty"`
	Version      int   `json:"version"`
	Targets      []any `json:"targets"`
	Rules        []any `json:"rules"`
	// Fallthrough is a *fakeRule, or what a test makes of it.
	Fallthrough    any   `json:"fallthrough,omitempty"`
	ContextTargets []any `json:"contextTargets"`
	Prerequisites  []any `json:"prerequisites"`
}

// fakeRule is a default rule as answers have it.
type fakeRule struct {
	Variation *int         `json:"variation,omitempty"`
	Rollout   *fakeRollout `json:"rollout,omitempty"`
}

type fakeRollout struct {
	Variations  []fakeWeight `json:"variations"`
	BucketBy    string       `json:"bucketBy,omitempty"`
	ContextKind string       `json:"contextKind,omitempty"`
	Experiment  any          `json:"experimentAllocation,omitempty"`
}

type fakeWeight struct {
	Variation int `json:"variation"`
	Weight    int `json:"weight"`
}

// fakeIDs are the variations' ids: true is the first.
var fakeIDs = []string{"86208e6e-468f-4425-b334-7f318397f95c", "7b32de80-f346-4276-bb77-28dfa7ddc2d8"}

// answer is how a request goes wrong.
type answer struct {
	code   int // 0: the connection is cut
	text   string
	header map[string]string
	// effect: what was asked is done nevertheless.
	effect bool
	// first, where set, happens before the request is looked at.
	first func(f *fake)
}

func number(n int) *int { return &n }

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{
		t: t, now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), answers: map[int]answer{},
		envs: map[string]*fakeEnv{
			"production": {On: true, OffVariation: number(1), Version: 61, Targets: []any{}, Rules: []any{}, Fallthrough: &fakeRule{Variation: number(0)}},
			"staging":    {On: true, OffVariation: number(1), Version: 7, Targets: []any{}, Rules: []any{}, Fallthrough: &fakeRule{Variation: number(0)}},
		},
	}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

// set changes the flag in production as someone else would.
func (f *fake) set(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put("production", on)
}

func (f *fake) put(env string, on bool) {
	e := f.envs[env]
	e.On = on
	e.Version++
	f.changes++
}

func (f *fake) state() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprintf("production on=%v, staging on=%v", f.envs["production"].On, f.envs["staging"].On)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r.Method+" "+r.URL.RequestURI())
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Errorf("read a request: %v", err)
	}
	a, odd := f.answers[1]
	next := map[int]answer{}
	for n, a := range f.answers {
		if n > 1 {
			next[n-1] = a
		}
	}
	f.answers = next
	if odd && a.first != nil {
		f.mu.Unlock()
		a.first(f)
		f.mu.Lock()
		odd = a.code != 0 || a.text != ""
	}
	code, answer := 0, any(nil)
	if !odd || a.effect {
		code, answer = f.answer(r, body)
	}
	switch {
	case !odd:
		f.write(w, code, answer)
	case a.code == 0:
		f.cut(w, a.text)
	default:
		for k, v := range a.header {
			w.Header().Set(k, v)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(a.code)
		if _, err := io.WriteString(w, a.text); err != nil {
			f.t.Errorf("answer: %v", err)
		}
	}
}

// cut ends the connection after the first bytes of an answer, or before them.
func (f *fake) cut(w http.ResponseWriter, text string) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		f.t.Errorf("hijack: %v", err)
		return
	}
	defer conn.Close()
	if text != "" {
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"+text); err != nil {
			f.t.Errorf("answer: %v", err)
		}
	}
}

func (f *fake) write(w http.ResponseWriter, code int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		f.t.Errorf("answer: %v", err)
	}
}

type fakeError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	ID      string `json:"id"`
}

func refusal(code int, word, message string) (int, any) {
	return code, fakeError{word, message, "30ce6058-87da-11e4-b116-123b93f75cba"}
}

func (f *fake) answer(r *http.Request, body []byte) (int, any) {
	if r.Header.Get("Authorization") != token {
		return refusal(401, "unauthorized", "Invalid access token "+r.Header.Get("Authorization"))
	}
	if v := r.Header.Get("LD-API-Version"); v != "20220603" {
		f.t.Errorf("LD-API-Version is %q", v)
	}
	switch {
	case r.URL.Path == "/api/v2/caller-identity":
		return 200, map[string]any{"tokenId": "61095542", "authKind": "token"}
	case r.URL.Path == "/api/v2/tokens/61095542" && f.own != nil:
		return 200, f.own
	case r.URL.Path != "/api/v2/flags/shop/recommendations":
		return refusal(404, "not_found", "Unknown flag key or project key")
	}
	switch r.Method {
	case http.MethodGet:
		env, ok := f.envs[r.URL.Query().Get("env")]
		if r.URL.Query().Encode() != "env="+r.URL.Query().Get("env") || len(body) > 0 {
			f.t.Errorf("asked %s with %q", r.URL, body)
		}
		if !ok {
			return 200, f.flag(nil)
		}
		return 200, f.flag(map[string]*fakeEnv{r.URL.Query().Get("env"): env})
	case http.MethodPatch:
		if q := r.URL.RawQuery; q != "" && q != "ignoreConflicts=true" {
			f.t.Errorf("query %q", q)
		}
		if ct := r.Header.Get("Content-Type"); ct != "application/json; domain-model=launchdarkly.semanticpatch" {
			f.t.Errorf("Content-Type %q", ct)
			return refusal(400, "invalid_request", "not a JSON patch")
		}
		return f.patch(body, r.URL.RawQuery != "")
	}
	f.t.Errorf("method %s", r.Method)
	return refusal(405, "method_not_allowed", "method not allowed")
}

func (f *fake) flag(envs map[string]*fakeEnv) any {
	return map[string]any{
		"name": "Recommendations", "kind": "boolean", "key": "recommendations", "_version": 3, "archived": f.archived, "temporary": true, "tags": []string{},
		"variations":   f.variations(),
		"environments": envs, "_links": map[string]any{},
	}
}

func (f *fake) variations() []any {
	if f.served != nil {
		return f.served
	}
	return []any{map[string]any{"_id": fakeIDs[0], "value": true}, map[string]any{"_id": fakeIDs[1], "value": false}}
}

// patch makes all of a patch's changes or, where one of them is not as documented,
// none. ignoring: what is planned for later is given up, where it conflicts.
func (f *fake) patch(body []byte, ignoring bool) (int, any) {
	var p struct {
		EnvironmentKey string           `json:"environmentKey"`
		Comment        string           `json:"comment"`
		Instructions   []map[string]any `json:"instructions"`
	}
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		f.t.Errorf("body %s: %v", body, err)
		return refusal(400, "invalid_request", err.Error())
	}
	env, ok := f.envs[p.EnvironmentKey]
	if !ok || len(p.Instructions) == 0 || p.Comment == "" {
		f.t.Errorf("body %s", body)
		return refusal(400, "invalid_request", "invalid patch")
	}
	on, rule, kinds := env.On, env.Fallthrough, ""
	for _, in := range p.Instructions {
		kind, _ := in["kind"].(string)
		var err error
		switch kind {
		case "turnFlagOn", "turnFlagOff":
			on = kind == "turnFlagOn"
			if len(in) != 1 {
				err = fmt.Errorf("%s takes nothing", kind)
			}
		case "updateFallthroughVariationOrRollout":
			rule, err = defaultRuleOf(in)
		default:
			err = fmt.Errorf("unknown instruction %q", kind)
		}
		if err != nil {
			f.t.Errorf("body %s: %v", body, err)
			return refusal(400, "invalid_request", err.Error())
		}
		kinds += kind + ", "
	}
	if f.approvals {
		return refusal(405, "method_not_allowed", "Flag configuration updates require approval: action 'updateOn' not allowed")
	}
	if f.scheduled && !ignoring {
		return refusal(409, "conflict", "the change conflicts with a scheduled change")
	}
	f.comments = append(f.comments, strings.TrimSuffix(kinds, ", ")+": "+p.Comment)
	f.bodies = append(f.bodies, string(body))
	if on != env.On || ruleText(rule) != ruleText(env.Fallthrough) {
		env.Fallthrough = rule
		f.put(p.EnvironmentKey, on)
	}
	return 200, f.flag(map[string]*fakeEnv{p.EnvironmentKey: env})
}

// defaultRuleOf reads the instruction as it is documented: one variation, or weights
// in thousandths of a percent.
func defaultRuleOf(in map[string]any) (*fakeRule, error) {
	rule := &fakeRule{}
	for key, v := range in {
		text, _ := v.(string)
		switch key {
		case "kind":
		case "variationId":
			n := slices.Index(fakeIDs, text)
			if n < 0 {
				return nil, fmt.Errorf("there is no variation %v", v)
			}
			rule.Variation = &n
		case "rolloutWeights", "rolloutBucketBy", "rolloutContextKind":
			if rule.Rollout == nil {
				rule.Rollout = &fakeRollout{}
			}
			switch {
			case key == "rolloutBucketBy" && text != "":
				rule.Rollout.BucketBy = text
			case key == "rolloutContextKind" && text != "":
				rule.Rollout.ContextKind = text
			case key != "rolloutWeights":
				return nil, fmt.Errorf("%s is %v", key, v)
			}
		default:
			return nil, fmt.Errorf("unknown parameter %s", key)
		}
	}
	if (rule.Variation == nil) == (rule.Rollout == nil) {
		return nil, errors.New("one of variationId and rolloutWeights is wanted")
	}
	if rule.Rollout == nil {
		return rule, nil
	}
	weights, _ := in["rolloutWeights"].(map[string]any)
	sum := 0
	for n, id := range fakeIDs {
		w, ok := weights[id].(float64)
		if !ok || w != float64(int(w)) || w < 0 || w > 100_000 {
			return nil, fmt.Errorf("the weight of %s is %v", id, weights[id])
		}
		sum += int(w)
		rule.Rollout.Variations = append(rule.Rollout.Variations, fakeWeight{n, int(w)})
	}
	if sum != 100_000 || len(weights) != len(fakeIDs) {
		return nil, fmt.Errorf("the weights are %v", weights)
	}
	return rule, nil
}

func ruleText(rule any) string {
	b, err := json.Marshal(rule)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// patches counts the changes that were asked for.
func (f *fake) patches() (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if strings.HasPrefix(r, "PATCH ") {
			n++
		}
	}
	return n
}

// wait lets the fake's time go by at once.
func (f *fake) wait(ctx context.Context, d time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
	f.waited = append(f.waited, d)
	return ctx.Err()
}

func (f *fake) action(transport http.RoundTripper, edit ...func(*Options, *alerts.Flag)) remediation.Action {
	f.t.Helper()
	o := Options{URL: f.url + "/", Token: token, Transport: transport, Wait: f.wait, Now: func() time.Time {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.now
	}}
	flag := alerts.Flag{Name: "FEATURE_RECOMMENDATIONS", Off: "false", LaunchDarkly: &alerts.LaunchDarklyFlag{Project: "shop", Environment: "production", Key: "recommendations"}}
	for _, e := range edit {
		e(&o, &flag)
	}
	c, err := New(o)
	if err != nil {
		f.t.Fatal(err)
	}
	a, err := c.FlagOff(alerts.Target{}, flag)
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}
