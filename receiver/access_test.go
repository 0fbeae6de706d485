package receiver

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/locotoki/backout/receiver/config"
)

// address is one of the server's, with a body that it takes.
type address struct {
	method, path, body string
	need               need
}

func addresses() []address {
	const reason = `{"reason":"r"}`
	return []address{
		{"POST", "/api/v1/webhook/alertmanager", oneAlert, postNotification},
		{"GET", "/api/v1/incidents", "", readState},
		{"GET", "/api/v1/audit", "", readState},
		{"GET", "/api/v1/audit/head", "", readState},
		{"GET", "/api/v1/freeze", "", readState},
		{"GET", "/api/v1/rollout", "", readState},
		{"POST", "/api/v1/incidents/inc-1/approve", `{"step":"1-x","reason":"r"}`, changeState},
		{"POST", "/api/v1/incidents/inc-1/deny", `{"step":"1-x","reason":"r"}`, changeState},
		{"POST", "/api/v1/incidents/inc-1/claim", reason, changeState},
		{"POST", "/api/v1/incidents/inc-1/release", reason, changeState},
		{"POST", "/api/v1/incidents/inc-1/close", reason, changeState},
		{"PUT", "/api/v1/freeze", reason, changeState},
		{"DELETE", "/api/v1/freeze?service=&reason=r", "", changeState},
		{"POST", "/api/v1/rollout/start", `{"stage":"alpha","declare":true,"reason":"r"}`, changeState},
		{"POST", "/api/v1/rollout/start", `{"reason":"r"}`, changeState},
		{"POST", "/api/v1/rollout/promote", `{"reason":"r"}`, changeState},
		{"POST", "/api/v1/rollout/hold", `{"reason":"r"}`, changeState},
		{"POST", "/api/v1/rollout/resume", `{"reason":"r"}`, changeState},
		{"POST", "/api/v1/rollout/finish", `{"reason":"r"}`, changeState},
		{"POST", "/api/v1/rollout/abort", `{"reason":"r"}`, changeState},
		{"POST", "/-/reload", "", changeState},
	}
}

func TestEachRoleMayDoWhatItIsFor(t *testing.T) {
	roles := map[config.Role]map[need]int{
		config.Alertmanager: {postNotification: 200, readState: 403, changeState: 403},
		config.Viewer:       {postNotification: 403, readState: 200, changeState: 403},
		config.Commander:    {postNotification: 200, readState: 200, changeState: 200},
		"unheard-of":        {postNotification: 403, readState: 403, changeState: 403},
	}
	for role, want := range roles {
		for _, a := range addresses() {
			t.Run(fmt.Sprintf("%s %s %s", role, a.method, a.path), func(t *testing.T) {
				b := newBench(t, token(t, "someone", role), token(t, "another", config.Viewer))
				for scheme, credentials := range map[string]string{
					"Bearer":     "Bearer someone-secret",
					"bearer":     "bearer someone-secret",
					"Basic":      "Basic " + base64.StdEncoding.EncodeToString([]byte("someone:someone-secret")),
					"user":       "",
					"wrong":      "Bearer someone-secre",
					"longer":     "Bearer someone-secret1",
					"empty":      "Bearer ",
					"other user": "Basic " + base64.StdEncoding.EncodeToString([]byte("another:someone-secret")),
					"no user":    "Basic " + base64.StdEncoding.EncodeToString([]byte(":someone-secret")),
					"broken":     "Basic someone:someone-secret",
					"digest":     "Digest someone-secret",
				} {
					r := request(a.method, a.path, a.body)
					if credentials != "" {
						r.Header.Set("Authorization", credentials)
					}
					status := want[a.need]
					if !strings.EqualFold(scheme, "Bearer") && scheme != "Basic" {
						status = http.StatusUnauthorized
					}
					w := b.do(r)
					if w.Code != status {
						t.Errorf("%s: answered %d %s; want %d", scheme, w.Code, w.Body, status)
					}
					challenge := strings.Join(w.Header().Values("WWW-Authenticate"), ", ")
					if basic := strings.Contains(challenge, `Basic realm="backout"`); basic != (status == 401) {
						t.Errorf("%s: %d with WWW-Authenticate %q", scheme, w.Code, challenge)
					}
					if w.Code != 200 {
						wantError(t, w, status, "")
					}
				}
				if strings.Contains(b.log.String(), "-secret") {
					t.Errorf("a secret is in the log: %s", b.log)
				}
			})
		}
	}
}

func TestARefusedCallerChangesNothing(t *testing.T) {
	b := newBench(t, token(t, "am", config.Alertmanager), token(t, "eye", config.Viewer))
	for _, a := range addresses() {
		if a.need == changeState {
			b.do(as(request(a.method, a.path, a.body), "eye"))
		}
	}
	b.do(as(request("POST", "/api/v1/webhook/alertmanager", oneAlert), "eye"))
	b.post(oneAlert)
	if len(b.service.changes) != 0 || len(b.service.took()) != 0 || b.reloads != 0 {
		t.Errorf("changes %v, %d notifications, %d reloads", b.service.changes, len(b.service.took()), b.reloads)
	}
	if got := strings.Join(b.service.refused, ", "); got != "192.0.2.1 forbidden, 192.0.2.1 unauthorized" {
		t.Errorf("noted as refused are %s", got)
	}
	if b.counted(resultForbidden) != 1 || b.counted(resultUnauthorized) != 1 {
		t.Errorf("counted %v forbidden, %v unauthorized", b.counted(resultForbidden), b.counted(resultUnauthorized))
	}
}

func TestWithoutTokensNotifyingAndReadingWorkAndNothingElse(t *testing.T) {
	for _, a := range addresses() {
		t.Run(a.method+" "+a.path, func(t *testing.T) {
			b := newBench(t)
			w := b.do(as(request(a.method, a.path, a.body), "anyone")) // what a client carries is not looked at
			if a.need == changeState {
				wantError(t, w, http.StatusForbidden, "no tokens are configured")
			} else if w.Code != http.StatusOK {
				t.Errorf("answered %d %s", w.Code, w.Body)
			}
			if len(b.service.changes) != 0 || b.reloads != 0 {
				t.Errorf("changed %v", b.service.changes)
			}
		})
	}
}

func TestTheOpenAddressesNeedNoToken(t *testing.T) {
	b := newBench(t, token(t, "oncall", config.Commander))
	for _, path := range []string{"/metrics", "/-/healthy", "/-/ready"} {
		for _, method := range []string{"GET", "HEAD"} {
			r := request(method, path, "")
			r.Host = "anything.example.com"
			if w := b.do(r); w.Code != http.StatusOK {
				t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
			}
		}
	}
}

func TestChangesAreMadeFromThisSiteOnly(t *testing.T) {
	const external = "https://backout.example.com"
	for _, tc := range []struct {
		external, host, origin string
		want                   int
	}{
		{"", "127.0.0.1:9099", "", 200},
		{"", "localhost:9099", "", 200},
		{"", "LOCALHOST", "", 200},
		{"", "[::1]:9099", "", 200},
		{"", "[::1]", "", 200},
		{"", "127.8.9.10:80", "", 200},
		{"", "localhost:12345", "", 200}, // a tunnel
		{"", "evil.example.com:9099", "", 403},
		{"", "localhost.evil.example.com", "", 403},
		{"", "127.0.0.1.evil.example.com", "", 403},
		{"", "evil@127.0.0.1", "", 403},
		{"", "127.0.0.1/evil", "", 403},
		{"", "10.0.0.5:9099", "", 403},
		{"", "", "", 403},
		{"", "127.0.0.1:9099", "http://127.0.0.1:9099", 200},
		{"", "localhost:9099", "http://localhost:9099", 200},
		{"", "localhost", "http://localhost", 200},
		{"", "localhost", "https://localhost:443", 200}, // no port in Host: 443 by the Origin's scheme
		{"", "[::1]:9099", "http://[::1]:9099", 200},
		{"", "127.0.0.1:9099", "http://127.0.0.1:3000", 403}, // another program of this machine
		{"", "127.0.0.1:9099", "http://localhost:9099", 403},
		{"", "127.0.0.1:9099", "http://evil.example.com", 403},
		{"", "127.0.0.1:9099", "null", 403},
		{"", "127.0.0.1:9099", "file://", 403},
		{"", "127.0.0.1:9099", "http://x@127.0.0.1:9099", 403},
		{"", "127.0.0.1:9099", "::", 403},
		{"", "evil.example.com:9099", "http://evil.example.com:9099", 403}, // its name points here
		{external, "backout.example.com", "", 200},
		{external, "Backout.Example.com:443", "", 200},
		{external, "backout.example.com", external, 200},
		{external, "backout.example.com", external + ":443", 200},
		{external, "127.0.0.1:9099", external, 200}, // a proxy that sets its own Host
		{external, "127.0.0.1:9099", "", 200},
		{external, "backout.example.com:80", "", 403},
		{external, "backout.example.com", "http://backout.example.com", 403},
		{external, "backout.example.com", "https://evil.example.com", 403},
		{external, "backout.example.com", "https://backout.example.com.evil.example.com", 403},
		{external, "evil.example.com", external, 403},
	} {
		t.Run(fmt.Sprintf("external %q host %q origin %q", tc.external, tc.host, tc.origin), func(t *testing.T) {
			b := newBench(t)
			cfg := config.Default()
			cfg.Tokens = []config.Token{token(t, "oncall", config.Commander)}
			if tc.external != "" {
				u, err := url.Parse(tc.external)
				if err != nil {
					t.Fatal(err)
				}
				cfg.ExternalURL = u
			}
			if err := b.Reconfigure(cfg); err != nil {
				t.Fatal(err)
			}
			for _, a := range addresses() {
				if a.need != changeState {
					continue
				}
				r := as(request(a.method, a.path, a.body), "oncall")
				r.Host = tc.host
				if tc.origin != "" {
					r.Header.Set("Origin", tc.origin)
				}
				w := b.do(r)
				if tc.want == 200 && w.Code != 200 {
					t.Errorf("%s %s: %d %s", a.method, a.path, w.Code, w.Body)
				} else if tc.want != 200 {
					wantError(t, w, tc.want, "")
				}
			}
			if tc.want != 200 && (len(b.service.changes) != 0 || b.reloads != 0) {
				t.Errorf("changed %v", b.service.changes)
			}
		})
	}
}

func TestTheSecondOfTwoOriginsCounts(t *testing.T) {
	b := newBench(t, token(t, "oncall", config.Commander))
	r := as(request("POST", "/api/v1/incidents/inc-1/claim", `{"reason":"r"}`), "oncall")
	r.Header["Origin"] = []string{"http://127.0.0.1:9099", "http://evil.example.com"}
	wantError(t, b.do(r), http.StatusForbidden, "not this server's own")
}

func TestAPageOfAnotherSiteCanNeitherPostAlertsNorReadThroughAName(t *testing.T) {
	b := newBench(t)
	r := request("POST", "/api/v1/webhook/alertmanager", oneAlert)
	r.Header.Set("Origin", "http://evil.example.com")
	wantError(t, b.do(r), http.StatusForbidden, "not this server's own")
	if b.counted(resultForbidden) != 1 || len(b.service.took()) != 0 {
		t.Error("it was not counted as forbidden, or was committed")
	}
	for _, a := range addresses() {
		r := request(a.method, a.path, a.body)
		r.Host = "evil.example.com:9099"
		switch w := b.do(r); a.need {
		case readState:
			wantError(t, w, http.StatusForbidden, "neither loopback nor the host of external_url")
		case postNotification: // Alertmanager may know this machine by any name
			if w.Code != http.StatusOK {
				t.Errorf("the webhook answered %d %s", w.Code, w.Body)
			}
		}
	}
}

func TestReadingWithATokenWorksUnderEachName(t *testing.T) {
	b := newBench(t, token(t, "eye", config.Viewer))
	r := as(request("GET", "/api/v1/incidents", ""), "eye")
	r.Host = "10.0.0.5:9099"
	if w := b.do(r); w.Code != http.StatusOK {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
}

func TestEveryChangeIsApplicationJSON(t *testing.T) {
	for _, a := range addresses() {
		if a.need != changeState {
			continue
		}
		for contentType, want := range map[string]int{
			"":                                  415,
			"text/plain":                        415,
			"application/x-www-form-urlencoded": 415,
			"multipart/form-data; boundary=x":   415,
			"application/jsonp":                 415,
			"text/plain; application/json":      415,
			"application/json":                  200,
			"Application/JSON; charset=utf-8":   200,
		} {
			b := newBench(t, token(t, "oncall", config.Commander))
			r := as(request(a.method, a.path, a.body), "oncall")
			r.Header.Del("Content-Type")
			if contentType != "" {
				r.Header.Set("Content-Type", contentType)
			}
			w := b.do(r)
			if w.Code != want {
				t.Errorf("%s %s as %q: %d %s", a.method, a.path, contentType, w.Code, w.Body)
			}
			if want == 415 && (len(b.service.changes) != 0 || b.reloads != 0) {
				t.Errorf("%s %s as %q changed %v", a.method, a.path, contentType, b.service.changes)
			}
		}
	}
}

func TestAReloadedTokenCountsAtOnce(t *testing.T) {
	b := newBench(t, token(t, "old", config.Viewer))
	cfg := config.Default()
	cfg.Tokens = []config.Token{token(t, "new", config.Viewer)}
	if err := b.Reconfigure(cfg); err != nil {
		t.Fatal(err)
	}
	wantError(t, b.do(as(request("GET", "/api/v1/incidents", ""), "old")), http.StatusUnauthorized, "known token")
	if w := b.do(as(request("GET", "/api/v1/incidents", ""), "new")); w.Code != http.StatusOK {
		t.Errorf("the new one: %d %s", w.Code, w.Body)
	}
}

func TestAPrintedTokenTellsNoSecret(t *testing.T) {
	text := fmt.Sprintf("%v %+v %#v", token(t, "oncall", config.Commander), token(t, "oncall", config.Commander), token(t, "oncall", config.Commander))
	if strings.Contains(text, "oncall-secret") {
		t.Error(text)
	}
}
