package receiver

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"mime"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/hint"
)

// csrfLife is how long a form can be sent after its page was made.
const csrfLife = 12 * time.Hour

// csrf makes and checks the tokens of forms: a moment, and a sum over it and the name
// of who was shown the form. The key is all replicas', and outlives a restart.
type csrf struct{ key []byte }

func (k csrf) token(name string, now time.Time) string {
	at := binary.BigEndian.AppendUint64(nil, uint64(now.Unix()))
	return base64.RawURLEncoding.EncodeToString(append(at, k.sum(name, at)...))
}

// sum is over what begins with a fixed length or is JSON, and a name: no two pairs are the
// same bytes.
func (k csrf) sum(name string, about []byte) []byte {
	h := hmac.New(sha256.New, k.key)
	h.Write(about)
	h.Write([]byte(name))
	return h.Sum(nil)
}

func (k csrf) valid(token, name string, now time.Time) bool {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) != 8+sha256.Size {
		return false
	}
	at := time.Unix(int64(binary.BigEndian.Uint64(raw)), 0)
	return subtle.ConstantTimeCompare(raw[8:], k.sum(name, raw[:8])) == 1 &&
		!at.After(now.Add(time.Minute)) && now.Sub(at) < csrfLife
}

// form guards an address that a form of the console posts to.
func (s *Server) form(h handler) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		actor, err := s.access.Load().changer(c)
		if err != nil {
			return err
		}
		switch site := r.Header.Get("Sec-Fetch-Site"); site {
		case "", "same-origin", "none":
		default:
			return refuse(http.StatusForbidden, "the form was sent from another site (%s)", site)
		}
		if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
			return refuse(http.StatusUnsupportedMediaType, "Content-Type: application/x-www-form-urlencoded is required")
		}
		r.Body = http.MaxBytesReader(c.Response(), r.Body, maxChange)
		if err := r.ParseForm(); err != nil {
			return refuse(http.StatusBadRequest, "the form cannot be read: %v", err)
		}
		if !s.csrf.valid(r.PostForm.Get("csrf"), actor, s.now()) {
			return hint.Add(refuse(http.StatusForbidden, "the form has expired"), "go back, reload the page and send it again")
		}
		return h(c, actor)
	}
}

// flash is what a change did, told on the page that follows it.
type flash struct {
	Actor  string    `json:"actor"`
	What   string    `json:"what"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// flashLife is for how long a page tells it.
const flashLife = 10 * time.Minute

// flash carries what a change did to the page that follows it, in that page's address:
// another replica may make the page. Only who holds the key can say something there.
func (k csrf) flash(f flash) (string, error) {
	body, err := json.Marshal(f)
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(append(k.sum("flash", body), body...)), nil
}

// flashed returns what that actor's change did, nil where that is not known.
func (k csrf) flashed(token, actor string, now time.Time) *flash {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < sha256.Size || subtle.ConstantTimeCompare(raw[:sha256.Size], k.sum("flash", raw[sha256.Size:])) != 1 {
		return nil
	}
	var f flash
	if json.Unmarshal(raw[sha256.Size:], &f) != nil || f.Actor != actor || now.Sub(f.At) > flashLife {
		return nil
	}
	return &f
}
