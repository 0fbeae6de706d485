package config

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/config"
	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/trust"
)

// Outgoing is how requests reach Prometheus or Alertmanager: http_config, which
// is that of prometheus/common, and headers. Its secrets are in files, which
// are read and checked again for each request, so that they can be rotated. The
// zero value is a plain connection.
type Outgoing struct {
	// client is the connection as Prometheus has it under http_config: authorization,
	// basic_auth, oauth2, tls_config, proxy_url. Secrets are in files, which are read again
	// for each request.
	client *config.HTTPClientConfig `config:"http_config"`
	// headers are headers of each request: NAME: VALUE, or NAME: {file: FILE} for a secret.
	headers []outgoingHeader `config:"headers"`
	// source is the text that it was read from, for Same.
	source string
}

// outgoingHeader has a value, or a file that holds it.
type outgoingHeader struct{ name, value, file string }

// Same reports whether both were configured alike.
func (o Outgoing) Same(other Outgoing) bool { return o.source == other.source }

// Digest tells one configuration from another, and keeps its secrets.
func (o Outgoing) Digest() string {
	sum := sha256.Sum256([]byte(o.source))
	return hex.EncodeToString(sum[:])
}

// Transport returns what carries requests; plain is used where nothing is
// configured. name is for errors.
func (o Outgoing) Transport(name string, plain http.RoundTripper) (http.RoundTripper, error) {
	if o.client != nil {
		var err error
		if plain, err = config.NewRoundTripperFromConfig(*o.client, name, config.WithSecretManager(secretFiles{})); err != nil {
			return nil, err
		}
	}
	if len(o.headers) == 0 {
		return plain, nil
	}
	return headerTransport{o.headers, plain}, nil
}

type headerTransport struct {
	headers []outgoingHeader
	next    http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t headerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for _, h := range t.headers {
		if h.file != "" {
			var err error
			if h.value, err = readToken(h.file); err != nil {
				return nil, fmt.Errorf("header %s: %w", h.name, err)
			}
		}
		r.Header.Add(h.name, h.value)
	}
	return t.next.RoundTrip(r)
}

// secretFiles is prometheus/common's source of secrets: each is named by its
// file, with a prefix for one that is public, such as a certificate.
type secretFiles struct{}

const publicFile = "public:"

// maxPEM is the largest file of certificates or keys, in bytes.
const maxPEM = 1 << 20

// Fetch implements config.SecretManager.
func (secretFiles) Fetch(_ context.Context, name string) (string, error) {
	read := trust.ReadSecret
	path, public := strings.CutPrefix(name, publicFile)
	if public {
		read = trust.ReadFile
	}
	content, err := read(path, maxPEM)
	if text := strings.TrimSpace(string(content)); err != nil || text != "" {
		return text, err
	}
	return "", fmt.Errorf("%s is empty", path)
}

// inlineSecrets are the keys of http_config that hold a secret, and what to
// write instead.
var inlineSecrets = map[string]string{
	"password":               "password_file: FILE",
	"credentials":            "credentials_file: FILE",
	"bearer_token":           "authorization: {credentials_file: FILE}",
	"client_secret":          "client_secret_file: FILE",
	"client_certificate_key": "client_certificate_key_file: FILE",
	"key":                    "key_file: FILE",
	"secrets":                "files: [FILE]",
	"proxy_connect_header":   "a proxy that needs no secret",
}

// outgoing are the fields http_config and headers of a neighbour.
func (r *configReader) outgoing(what string, into *Outgoing) []field {
	fields := []field{
		{"http_config", func(n *yaml.Node) { r.httpConfig(n, what+".http_config", into) }},
		{"headers", func(n *yaml.Node) { r.headers(n, what+".headers", into) }},
	}
	// Prometheus has these one level higher in its scrape_configs.
	for _, key := range []string{"authorization", "basic_auth", "bearer_token_file", "bearer_token", "oauth2", "proxy_url", "tls_config"} {
		fields = append(fields, field{key, func(n *yaml.Node) {
			r.fail(n, fmt.Sprintf("%s: {http_config: {%s: ...}}", what, key), "%s belongs under http_config", key)
		}})
	}
	return fields
}

// unknownField takes the key out of an error of the strict decoder.
var unknownField = regexp.MustCompile(`^(?:line \d+: )?field (\S+) not found in type \S+$`)

func (r *configReader) httpConfig(n *yaml.Node, what string, into *Outgoing) {
	before := len(r.mistakes)
	walk(n, func(key, value *yaml.Node) {
		try, secret := inlineSecrets[key.Value]
		switch {
		case secret:
			r.fail(key, try, "%s: %s would put a secret into the configuration", what, key.Value)
		case strings.HasSuffix(key.Value, "_ref"):
			r.fail(key, strings.TrimSuffix(key.Value, "_ref")+"_file: FILE", "%s: %s names a secret manager, which backout does not support", what, key.Value)
		case key.Value == "follow_redirects" && value.Value == "true":
			r.fail(key, "the address that answers itself", "%s: backout does not follow redirects, since a login page is not an answer", what)
		case (key.Value == "proxy_url" || key.Value == "token_url") && strings.Contains(value.Value, "@"):
			r.fail(value, "the address without USER:PASSWORD@", "%s: %s must not contain a secret", what, key.Value)
		}
	})
	if len(r.mistakes) > before {
		return
	}
	source, err := yaml.Marshal(n)
	if err != nil {
		r.fail(n, "", "%s: %w", what, err)
		return
	}
	dec := yaml.NewDecoder(bytes.NewReader(source))
	dec.KnownFields(true)
	cfg := config.HTTPClientConfig{}
	if err := dec.Decode(&cfg); err != nil {
		r.httpConfigMistakes(n, what, err)
		return
	}
	cfg.FollowRedirects = false
	if cfg.ProxyURL.URL == nil && !hasKey(n, "proxy_from_environment") {
		cfg.ProxyFromEnvironment = true // as without http_config
	}
	cfg.SetDirectory(r.dir)
	if cfg.HTTPHeaders != nil {
		for name, h := range cfg.HTTPHeaders.Headers {
			for _, v := range h.Values {
				into.headers = append(into.headers, outgoingHeader{name: name, value: v})
			}
			for _, f := range h.Files {
				into.headers = append(into.headers, outgoingHeader{name: name, file: f})
			}
		}
		cfg.HTTPHeaders = nil
	}
	files := byReference(&cfg)
	into.client = &cfg
	into.source += string(source)
	for _, name := range files {
		if _, err := (secretFiles{}).Fetch(context.Background(), name); err != nil {
			r.fail(n, secretTry(err, "write the secret into it as one line, readable by its owner only"), "%s: %w", what, err)
		}
	}
	for _, h := range into.headers {
		r.headerFile(n, what, h)
	}
	if len(r.mistakes) > before {
		return
	}
	if _, err := into.Transport(what, nil); err != nil { // its certificates are read
		r.fail(n, "", "%s: %w", what, err)
	}
}

// byReference lets every file be read by secretFiles, and returns their names.
func byReference(cfg *config.HTTPClientConfig) []string {
	var names []string
	move := func(file, ref *string, prefix string) {
		if *file != "" {
			*ref, *file = prefix+*file, ""
			names = append(names, *ref)
		}
	}
	tls := func(t *config.TLSConfig) {
		move(&t.CAFile, &t.CARef, publicFile)
		move(&t.CertFile, &t.CertRef, publicFile)
		move(&t.KeyFile, &t.KeyRef, "")
	}
	tls(&cfg.TLSConfig)
	if b := cfg.BasicAuth; b != nil {
		move(&b.UsernameFile, &b.UsernameRef, publicFile)
		move(&b.PasswordFile, &b.PasswordRef, "")
	}
	if a := cfg.Authorization; a != nil { // bearer_token_file is one by now
		move(&a.CredentialsFile, &a.CredentialsRef, "")
	}
	if o := cfg.OAuth2; o != nil {
		move(&o.ClientSecretFile, &o.ClientSecretRef, "")
		move(&o.ClientCertificateKeyFile, &o.ClientCertificateKeyRef, "")
		tls(&o.TLSConfig)
	}
	return names
}

// httpConfigMistakes reports what the strict decoder found.
func (r *configReader) httpConfigMistakes(n *yaml.Node, what string, err error) {
	var many *yaml.TypeError
	if !errors.As(err, &many) {
		r.fail(n, "", "%s: %s", what, strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	for _, text := range many.Errors {
		m := unknownField.FindStringSubmatch(text)
		if m == nil {
			r.fail(n, "", "%s: %s", what, text[strings.Index(text, ": ")+1:])
			continue
		}
		at := n
		walk(n, func(key, _ *yaml.Node) {
			if key.Value == m[1] {
				at = key
			}
		})
		r.fail(at, "a key of http_config as Prometheus's documentation lists them", "unknown key %q in %s", m[1], what)
	}
}

// secretName is what a header is called whose value is a secret.
var secretName = regexp.MustCompile(`(?i)(authorization|cookie|token|secret|password|key)$`)

// headers reads {NAME: VALUE} and {NAME: {file: FILE}}; a list has several.
func (r *configReader) headers(n *yaml.Node, what string, into *Outgoing) {
	if n.Kind != yaml.MappingNode {
		r.fail(n, "headers: {X-Scope-OrgID: shop}", "%s must be a mapping", what)
		return
	}
	source, err := yaml.Marshal(n)
	if err != nil {
		r.fail(n, "", "%s: %w", what, err)
		return
	}
	into.source += "headers: " + string(source)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], target(n.Content[i+1])
		canonical := http.CanonicalHeaderKey(name.Value)
		switch _, reserved := config.ReservedHeaders[canonical]; {
		case canonical == "Authorization":
			r.fail(name, "http_config: {authorization: {credentials_file: FILE}}", "%s: Authorization is not set here", what)
			continue
		case reserved:
			r.fail(name, "leave it out", "%s: %s is set by the connection itself", what, canonical)
			continue
		case !headerName.MatchString(name.Value):
			r.fail(name, "letters, digits and -", "%s: %q cannot be a header's name", what, name.Value)
			continue
		}
		list := []*yaml.Node{value}
		if value.Kind == yaml.SequenceNode {
			list = value.Content
		}
		for _, v := range list {
			h := outgoingHeader{name: name.Value}
			if v = target(v); v.Kind == yaml.MappingNode {
				r.fields(v, what+"."+name.Value, field{"file", func(n *yaml.Node) {
					if h.file = r.text(n, "a header's file"); h.file != "" {
						h.file = r.path(h.file)
					}
				}})
				if h.file == "" {
					r.fail(v, "{file: FILE}", "%s: header %s has no file", what, name.Value)
					continue
				}
				r.headerFile(v, what, h)
			} else if h.value = r.text(v, "a header"); secretName.MatchString(name.Value) {
				r.fail(v, fmt.Sprintf("%s: {file: FILE}", name.Value), "%s: %s would put a secret into the configuration", what, name.Value)
			} else if strings.ContainsAny(h.value, "\r\n\x00") {
				r.fail(v, "one line", "%s: header %s holds more than one line", what, name.Value)
			}
			into.headers = append(into.headers, h)
		}
	}
}

var headerName = regexp.MustCompile(`^[A-Za-z0-9-]+$`)

func (r *configReader) headerFile(n *yaml.Node, what string, h outgoingHeader) {
	if h.file == "" {
		return
	}
	if _, err := readToken(h.file); err != nil {
		r.fail(n, secretTry(err, "write the secret into it as one line, readable by its owner only"), "%s: header %s: %w", what, h.name, err)
	}
}

// secretTry is what helps against a secret's file that is not taken: write, but
// for one that is not trusted, which says so itself.
func secretTry(err error, write string) string {
	if _, try := hint.Of(err); try != "" {
		return ""
	}
	return write
}

// walk calls fn for each key of a tree.
func walk(n *yaml.Node, fn func(key, value *yaml.Node)) {
	n = target(n)
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			fn(child, target(n.Content[i+1]))
			continue
		}
		walk(child, fn)
	}
}

func hasKey(n *yaml.Node, key string) bool {
	return slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return c.Value == key })
}
