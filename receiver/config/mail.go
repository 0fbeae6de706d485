package config

import (
	"net/mail"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/trust"
)

// Mail is the server that takes mail to customers of incidents that last.
type Mail struct {
	// Host is the mail server.
	Host string `config:"host"`
	// Port is its port. Default: 587 for starttls, 465 for implicit, 25 for none.
	Port int `config:"port"`
	// From is the sender, with a name or without.
	From string `config:"from"`
	// Username is the account, if the server asks for one. Needs password_file.
	Username string `config:"username"`
	// Password is a file that holds the account's password.
	Password Secret `config:"password_file"`
	// TLS is starttls, implicit or, on loopback only, none.
	TLS string `config:"tls"`
}

// mailPorts are the default ports, by TLS mode.
var mailPorts = map[string]int{"starttls": 587, "implicit": 465, "none": 25}

// mail reads the mail server; nil if it has mistakes.
func (r *configReader) mail(n *yaml.Node) *Mail {
	before := len(r.mistakes)
	m := &Mail{TLS: "starttls"}
	var password *yaml.Node
	r.fields(n, "mail",
		field{"host", func(n *yaml.Node) {
			if m.Host = r.text(n, "mail.host"); strings.ContainsAny(m.Host, "/@ \t\r\n") {
				r.fail(n, "mail.example.com", "mail.host: invalid host name %q", m.Host)
			}
		}},
		field{"port", func(n *yaml.Node) {
			port, err := strconv.ParseUint(n.Value, 10, 16)
			if n.Kind != yaml.ScalarNode || err != nil || port == 0 {
				r.fail(n, "587", "mail.port must be a number from 1 to 65535")
			}
			m.Port = int(port)
		}},
		field{"from", func(n *yaml.Node) {
			m.From = r.text(n, "mail.from")
			if _, err := mail.ParseAddress(m.From); err != nil && m.From != "" {
				r.fail(n, `"Shop status <status@example.com>"`, "mail.from: invalid mail address %q", m.From)
			}
		}},
		field{"username", func(n *yaml.Node) { m.Username = r.text(n, "mail.username") }},
		field{"password_file", func(n *yaml.Node) { password = n }},
		field{"tls", func(n *yaml.Node) {
			if m.TLS = r.text(n, "mail.tls"); m.TLS != "" && mailPorts[m.TLS] == 0 {
				r.fail(n, "starttls, implicit, or on loopback none", "mail.tls: unknown tls mode %q", m.TLS)
			}
		}})
	if len(r.mistakes) > before {
		return nil
	}
	switch {
	case m.Host == "" || m.From == "":
		r.fail(n, "{host: mail.example.com, from: status@example.com}", "mail needs host and from")
	case (m.Username == "") != (password == nil):
		r.fail(n, "username: backout, password_file: mail.password", "mail needs both username and password_file, or neither")
	case m.TLS == "none" && !trust.Loopback(m.Host):
		r.fail(n, "tls: starttls", "mail: without TLS anyone on the path to %s can read it; tls: none is for loopback", m.Host)
	case m.TLS == "none" && password != nil:
		r.fail(n, "tls: starttls", "mail: a password needs TLS")
	}
	if m.Port == 0 {
		m.Port = mailPorts[m.TLS]
	}
	m.Password = r.secretFile(password, "mail.password_file", "the password")
	if len(r.mistakes) > before {
		return nil
	}
	return m
}

// Same reports whether both are one server with one account; either may be nil.
func (m *Mail) Same(other *Mail) bool {
	if m == nil || other == nil {
		return m == other
	}
	return *m == *other
}
