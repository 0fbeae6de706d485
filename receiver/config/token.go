package config

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/trust"
)

// Role is what the holder of a token may do.
type Role string

// The roles: Alertmanager posts notifications only, a Viewer reads, a Commander
// does all.
const (
	Alertmanager Role = "alertmanager"
	Viewer       Role = "viewer"
	Commander    Role = "commander"
)

// Token is a caller. It keeps only a digest, so that printing a Token by mistake
// reveals no secret.
type Token struct {
	// Name is the actor in the audit log, and the user name of HTTP Basic.
	Name string `config:"name"`
	// Role is what the token may do: alertmanager posts the webhook, viewer reads,
	// commander does everything.
	Role Role `config:"role"`

	// Secret is a file that holds the token, 16 characters or more, readable by its owner
	// only.
	Secret [sha256.Size]byte `config:"file"`
	User   [sha256.Size]byte
}

// NewToken returns a token; secret must not be empty.
func NewToken(name string, role Role, secret string) (Token, error) {
	if secret == "" {
		return Token{}, fmt.Errorf("token %q is empty", name)
	}
	return Token{Name: name, Role: role, Secret: sha256.Sum256([]byte(secret)), User: sha256.Sum256([]byte(name))}, nil
}

// minToken is the shortest token of a caller, in bytes.
const minToken = 16

// maxToken is the largest token file, in bytes.
const maxToken = 4096

// tokenName is what an audit entry can show and Basic can carry.
var tokenName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// tokens reads the list of tokens and the files that it names.
func (r *configReader) tokens(n *yaml.Node) []Token {
	var list []Token
	names, secrets := map[string]int{}, map[[sha256.Size]byte]string{}
	r.each(n, "tokens", func(n *yaml.Node) {
		t, ok := r.token(n)
		if line, twice := names[t.Name]; twice && t.Name != "" {
			r.fail(n, "a name of its own for each", "the token name %q is already in line %d", t.Name, line)
			return
		}
		names[t.Name] = n.Line
		if !ok {
			return
		}
		if other, twice := secrets[t.Secret]; twice {
			r.fail(n, "a secret of its own for each", "tokens %q and %q are the same secret: the audit log could not tell them apart", other, t.Name)
			return
		}
		secrets[t.Secret] = t.Name
		list = append(list, t)
	})
	return list
}

// token reads one. If it has a mistake, the name is returned all the same, as far as there is one.
func (r *configReader) token(n *yaml.Node) (Token, bool) {
	before := len(r.mistakes)
	var name, role, file string
	var fileNode *yaml.Node
	r.fields(n, "a token",
		field{"name", func(n *yaml.Node) {
			name = r.text(n, "a token's name")
			if name != "" && !tokenName.MatchString(name) {
				r.fail(n, "letters, digits and . _ @ -, 64 at most", "invalid token name %q", name)
			}
		}},
		field{"role", func(n *yaml.Node) {
			role = r.text(n, "a token's role")
			switch Role(role) {
			case Alertmanager, Viewer, Commander, "":
			default:
				r.fail(n, "alertmanager, viewer or commander", "unknown role %q", role)
			}
		}},
		field{"file", func(n *yaml.Node) { file, fileNode = r.text(n, "a token's file"), n }})
	if len(r.mistakes) > before {
		return Token{Name: name}, false
	}
	if name == "" || role == "" || file == "" {
		r.fail(n, "{name: oncall, role: commander, file: oncall.token}", "a token needs name, role and file")
		return Token{Name: name}, false
	}
	if name == "engine" || (name == "alertmanager" && Role(role) != Alertmanager) {
		r.fail(n, "another name", "the name %q is reserved for backout in the audit log", name)
		return Token{Name: name}, false
	}
	secret, err := readToken(r.path(file))
	if err != nil {
		r.fail(fileNode, secretTry(err, "write one line into it, readable by its owner only"), "token %q: %w", name, err)
		return Token{Name: name}, false
	}
	if len(secret) < minToken {
		r.fail(fileNode, "openssl rand -hex 32 > "+r.path(file), "token %q: %s has %s; at least %d are needed", name, r.path(file), alerts.Counted(len(secret), "character"), minToken)
		return Token{Name: name}, false
	}
	t, err := NewToken(name, Role(role), secret)
	if err != nil {
		r.fail(fileNode, "write the token into "+file, "%w", err)
		return Token{Name: name}, false
	}
	return t, true
}

// readToken reads a secret of one line that nobody else has access to.
func readToken(path string) (string, error) {
	content, err := trust.ReadSecret(path, maxToken)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(content))
	switch {
	case secret == "":
		return "", fmt.Errorf("%s is empty", path)
	case strings.ContainsAny(secret, "\r\n\x00"):
		return "", fmt.Errorf("%s holds more than one line", path)
	}
	return secret, nil
}
