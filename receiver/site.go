package receiver

import (
	"net/url"
	"strings"

	"github.com/locotoki/backout/trust"
)

// site is a scheme, host and port: what a browser calls an origin. The methods
// of a nil *site know loopback only.
type site struct {
	scheme, host, port string
}

// siteOf normalises u: lower case, and the port always there.
func siteOf(u *url.URL) site {
	s := site{scheme: strings.ToLower(u.Scheme), host: strings.ToLower(u.Hostname()), port: u.Port()}
	if s.port == "" {
		s.port = defaultPort(s.scheme)
	}
	return s
}

func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

// knows reports whether a Host header names loopback, on any port (a tunnel's is
// another), or this site.
func (s *site) knows(hostHeader string) bool {
	host, port, ok := splitHost(hostHeader)
	if !ok {
		return false
	}
	if trust.Loopback(host) {
		return true
	}
	if s == nil {
		return false
	}
	if port == "" {
		port = defaultPort(s.scheme)
	}
	return host == s.host && port == s.port
}

// sameOrigin reports whether an Origin header is this site's, or that of a
// loopback page which the request's own Host served. http.CrossOriginProtection would let
// a page of http change what https serves, since it compares no scheme.
func (s *site) sameOrigin(originHeader, hostHeader string) bool {
	u, err := url.Parse(originHeader)
	if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return false
	}
	origin := siteOf(u)
	if s != nil && origin == *s {
		return true
	}
	host, port, ok := splitHost(hostHeader)
	if !ok || !trust.Loopback(host) {
		return false
	}
	if port == "" {
		port = defaultPort(origin.scheme)
	}
	return origin.host == host && origin.port == port
}

// splitHost takes a Host header apart; port is "" where it has none.
func splitHost(header string) (host, port string, ok bool) {
	u, err := url.Parse("//" + header)
	if err != nil || u.Host != header || u.User != nil || u.Hostname() == "" {
		return "", "", false
	}
	return strings.ToLower(u.Hostname()), u.Port(), true
}
