package receiver

import (
	"crypto/sha256"
	"crypto/subtle"
	"mime"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/receiver/wrongtoken"
)

// need is what a request wants to do.
type need int

const (
	postNotification need = iota + 1
	readState
	changeState
)

// may reports whether a role allows what is needed. An unknown role may nothing.
func may(r config.Role, n need) bool {
	switch r {
	case config.Alertmanager:
		return n == postNotification
	case config.Viewer:
		return n == readState
	case config.Commander:
		return true
	}
	return false
}

// access is who may do what, and from where; it is replaced as a whole by a
// reload.
type access struct {
	tokens   []config.Token
	external *site
	slack    *config.Slack
	wrong    *wrongtoken.Guard
}

func newAccess(cfg *config.Config, wrong *wrongtoken.Guard) *access {
	a := &access{tokens: cfg.Tokens, slack: cfg.Slack, wrong: wrong}
	if cfg.ExternalURL != nil {
		s := siteOf(cfg.ExternalURL)
		a.external = &s
	}
	return a
}

// caller returns the name of the token that a request carries; "" where no
// tokens are configured. It refuses with 401 a request without a known token,
// with 403 one whose role does not allow it.
func (a *access) caller(c echo.Context, n need) (string, error) {
	if len(a.tokens) == 0 {
		if n == changeState {
			return "", hint.Add(refuse(http.StatusForbidden, "no tokens are configured, so nothing can be changed here"),
				"add a token with the role commander to tokens: in --config.file")
		}
		return "", nil
	}
	token, ok := a.match(c.Request())
	if !ok {
		if c.Request().Header.Get("Authorization") != "" {
			a.wrong.Came(c.Request())
		}
		h := c.Response().Header()
		h.Add("WWW-Authenticate", `Basic realm="backout", charset="UTF-8"`)
		h.Add("WWW-Authenticate", `Bearer realm="backout"`)
		return "", hint.Add(refuse(http.StatusUnauthorized, "a known token is required"), "Authorization: Bearer TOKEN, or Basic with the token's name as user")
	}
	if !may(token.Role, n) {
		return "", refuse(http.StatusForbidden, "token %q has the role %s, which does not allow this", token.Name, token.Role)
	}
	return token.Name, nil
}

// match looks the request's credentials up. It compares with every token, each
// in constant time, so that its duration tells nothing.
func (a *access) match(r *http.Request) (config.Token, bool) {
	var secret, user [sha256.Size]byte
	anyUser := 0
	if name, password, ok := r.BasicAuth(); ok {
		secret, user = sha256.Sum256([]byte(password)), sha256.Sum256([]byte(name))
	} else if scheme, value, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		secret, anyUser = sha256.Sum256([]byte(strings.TrimSpace(value))), 1
	} else {
		return config.Token{}, false
	}
	found := -1
	for i := range a.tokens {
		t := &a.tokens[i]
		same := subtle.ConstantTimeCompare(secret[:], t.Secret[:]) & (anyUser | subtle.ConstantTimeCompare(user[:], t.User[:]))
		found = subtle.ConstantTimeSelect(same, i, found)
	}
	if found < 0 {
		return config.Token{}, false
	}
	return a.tokens[found], true
}

// checkHost refuses a Host that is neither external_url's nor loopback: a name
// of someone else's that resolves to this machine.
func (a *access) checkHost(r *http.Request) error {
	if a.external.knows(r.Host) {
		return nil
	}
	return hint.Add(refuse(http.StatusForbidden, "Host %q is neither loopback nor the host of external_url", r.Host), "one of them, or set external_url in --config.file")
}

// checkOrigin refuses a request that a page of another site makes.
func (a *access) checkOrigin(r *http.Request) error {
	for _, origin := range r.Header["Origin"] {
		if !a.external.sameOrigin(origin, r.Host) {
			return refuse(http.StatusForbidden, "Origin %q is not this server's own", origin)
		}
	}
	return nil
}

// changer returns who wants to change the state from a page or a program of this site.
func (a *access) changer(c echo.Context) (string, error) {
	actor, err := a.caller(c, changeState)
	if err != nil {
		return "", err
	}
	if err := a.checkHost(c.Request()); err != nil {
		return "", err
	}
	return actor, a.checkOrigin(c.Request())
}

// handler is a handler that knows who calls.
type handler func(c echo.Context, actor string) error

// read guards an address that shows the state. Without tokens a page of
// another site could read it through a name that it points to this machine, so
// there the Host is looked at; with tokens the browser has no password for such
// a name.
func (s *Server) read(h handler) echo.HandlerFunc {
	return func(c echo.Context) error {
		a := s.access.Load()
		actor, err := a.caller(c, readState)
		if err != nil {
			return err
		}
		if len(a.tokens) == 0 {
			if err := a.checkHost(c.Request()); err != nil {
				return err
			}
		}
		return h(c, actor)
	}
}

// change guards an address that changes the state.
func (s *Server) change(h handler) echo.HandlerFunc {
	return func(c echo.Context) error {
		actor, err := s.access.Load().changer(c)
		if err != nil {
			return err
		}
		if t, _, err := mime.ParseMediaType(c.Request().Header.Get("Content-Type")); err != nil || t != "application/json" {
			return refuse(http.StatusUnsupportedMediaType, "Content-Type: application/json is needed for every change")
		}
		return h(c, actor)
	}
}
