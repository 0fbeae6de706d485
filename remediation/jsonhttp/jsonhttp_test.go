package jsonhttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

const secret = "hush-9b2e"

// service answers each request with the next of its answers, and remembers the requests.
type service struct {
	t       *testing.T
	answers []answer
	got     []string // method, path and body
	headers []http.Header
	waited  []time.Duration
}

type answer struct {
	code   int // 0: the connection is cut
	body   string
	header map[string]string
}

func (s *service) RoundTrip(req *http.Request) (*http.Response, error) {
	body := ""
	if req.Body != nil {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			s.t.Error(err)
		}
		body = " " + string(b)
	}
	s.got = append(s.got, req.Method+" "+req.URL.String()+body)
	s.headers = append(s.headers, req.Header)
	if len(s.answers) == 0 {
		s.t.Fatalf("unexpected %s", s.got[len(s.got)-1])
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	if a.code == 0 {
		return nil, errors.New("connection cut")
	}
	h := http.Header{}
	for k, v := range a.header {
		h.Set(k, v)
	}
	return &http.Response{StatusCode: a.code, Header: h, Body: io.NopCloser(strings.NewReader(a.body)), Request: req}, nil
}

var now = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

func client(t *testing.T, answers ...answer) (*Client, *service) {
	t.Helper()
	s := &service{t: t, answers: answers}
	c, err := New(Options{
		Name: "flags", URL: "https://flags.example.com/shop/", Secret: secret, SecretName: "token", Scheme: "Bearer ", Transport: s,
		Now: func() time.Time { return now },
		Wait: func(ctx context.Context, d time.Duration) error {
			s.waited = append(s.waited, d)
			return ctx.Err()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func TestTheSecretGoesIntoOneHeaderAndNeverFollowsARedirect(t *testing.T) {
	c, s := client(t, answer{code: 302, header: map[string]string{"Location": "https://elsewhere.example.com/"}, body: "token " + secret})
	err := c.Once(t.Context(), http.MethodPost, "/a", map[string]int{"b": 1}, nil)
	if err == nil || strings.Contains(err.Error(), secret) || err.Error() != "flags: POST /a: 302 token (the token)" {
		t.Error(err)
	}
	if want := []string{`POST https://flags.example.com/shop/a {"b":1}`}; !slices.Equal(s.got, want) {
		t.Errorf("requests %q, want %q", s.got, want)
	}
	for key, values := range s.headers[0] {
		if has := strings.Contains(strings.Join(values, " "), secret); has != (key == "Authorization") {
			t.Errorf("%s: %q", key, values)
		}
	}
}

func TestAServiceIsWaitedForAsItAsks(t *testing.T) {
	for name, c := range map[string]struct {
		header map[string]string
		want   time.Duration
	}{
		"seconds":         {map[string]string{"Retry-After": "7"}, 7 * time.Second},
		"a date":          {map[string]string{"Retry-After": now.Add(9 * time.Second).Format(http.TimeFormat)}, 9 * time.Second},
		"milliseconds":    {map[string]string{"X-Ratelimit-Reset": "1795316403000"}, 3 * time.Second},
		"nothing said":    {nil, restWithout},
		"a moment passed": {map[string]string{"X-Ratelimit-Reset": "1"}, restWithout},
		"a date passed":   {map[string]string{"Retry-After": now.Add(-9 * time.Second).Format(http.TimeFormat)}, restWithout},
		"no time":         {map[string]string{"Retry-After": "soon"}, restWithout},
		"a time before":   {map[string]string{"Retry-After": "-5"}, restWithout},
		"too large":       {map[string]string{"Retry-After": "99999999999999999999"}, restWithout},
		"a day":           {map[string]string{"Retry-After": "86400"}, maxRest},
	} {
		client, s := client(t, answer{code: 429, header: c.header}, answer{code: 200, body: "{}"})
		client.o.ResetMillis = true
		if err := client.Get(t.Context(), "/a", &struct{}{}); err != nil || !slices.Equal(s.waited, []time.Duration{c.want}) {
			t.Errorf("%s: %v after waits of %v, want %s", name, err, s.waited, c.want)
		}
	}
}

func TestAResetInAnUnknownUnitIsNotBelieved(t *testing.T) {
	client, s := client(t, answer{code: 429, header: map[string]string{"X-Ratelimit-Reset": "1795316403000"}}, answer{code: 200, body: "{}"})
	if err := client.Get(t.Context(), "/a", &struct{}{}); err != nil || !slices.Equal(s.waited, []time.Duration{restWithout}) {
		t.Errorf("%v after waits of %v", err, s.waited)
	}
}

// steps is a plan of n changes, which looks before each.
func steps(n int) (next func() (*Step, error), looks *int) {
	looks = new(int)
	return func() (*Step, error) {
		*looks++
		if n == 0 {
			return nil, nil
		}
		n--
		return &Step{Method: http.MethodPost, Path: "/step", More: n > 0}, nil
	}, looks
}

func TestEachChangeFollowsALook(t *testing.T) {
	c, s := client(t, answer{code: 200}, answer{code: 200})
	next, looks := steps(2)
	if err := c.Change(t.Context(), "set it", next); err != nil || *looks != 2 || len(s.got) != 2 {
		t.Errorf("%v after %d looks and %q", err, *looks, s.got)
	}
	c, s = client(t, answer{code: 500}, answer{code: 409}, answer{code: 200})
	next, looks = steps(9)
	stop := func() (*Step, error) {
		if *looks == 3 {
			return nil, nil
		}
		return next()
	}
	if err := c.Change(t.Context(), "set it", stop); err != nil || !slices.Equal(s.waited, []time.Duration{Pause(1), Pause(2)}) {
		t.Errorf("%v after waits of %v", err, s.waited)
	}
}

func TestAChangeEndsInDoubtOnlyIfTheServiceDidNotDecide(t *testing.T) {
	fails := []answer{{code: 503}, {code: 503}, {code: 503}, {code: 503}, {code: 503}}
	for name, c := range map[string]struct {
		answers []answer
		waits   int
		doubt   bool
	}{
		"no answer":        {[]answer{{}}, 0, true},
		"failures only":    {fails, Tries - 1, true},
		"a refusal":        {[]answer{{code: 403}}, 0, false},
		"conflicts only":   {[]answer{{code: 409}, {code: 409}, {code: 409}, {code: 409}, {code: 409}}, Tries - 1, false},
		"it does not stay": {[]answer{{code: 200}, {code: 200}, {code: 200}, {code: 200}, {code: 200}}, 0, true},
	} {
		client, s := client(t, c.answers...)
		next, _ := steps(9)
		err := client.Change(t.Context(), "set it", next)
		if err == nil || !strings.HasPrefix(err.Error(), "set it: ") || len(s.waited) != c.waits {
			t.Errorf("%s: %v after waits of %v", name, err, s.waited)
		}
		var e *Error
		if refused := errors.As(err, &e) && e.Code < 500; refused == c.doubt {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnOddAnswerIsAskedForAgain(t *testing.T) {
	c, s := client(t, answer{code: 200, body: "<html>"}, answer{}, answer{code: 200, body: `{"a": 1}`})
	var out struct{ A int }
	if err := c.Get(t.Context(), "/a", &out); err != nil || out.A != 1 || len(s.waited) != 2 {
		t.Errorf("%v: %+v after waits of %v", err, out, s.waited)
	}
}
