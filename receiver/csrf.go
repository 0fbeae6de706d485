package receiver

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/hint"
)

// csrfLife is how long a form can be sent after its page was made.
const csrfLife = 12 * time.Hour

// csrf makes and checks the tokens of forms: a moment, and a sum over it and the name
// of who was shown the form. The key is this process's, so a restart voids them.
type csrf struct{ key []byte }

func newCSRF() csrf {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the program instead
	return csrf{key}
}

func (k csrf) token(name string, now time.Time) string {
	at := binary.BigEndian.AppendUint64(nil, uint64(now.Unix()))
	return base64.RawURLEncoding.EncodeToString(append(at, k.sum(name, at)...))
}

func (k csrf) sum(name string, at []byte) []byte {
	h := hmac.New(sha256.New, k.key)
	h.Write(at)
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
		a, r := s.access.Load(), c.Request()
		actor, err := a.caller(c, changeState)
		if err != nil {
			return err
		}
		if err := a.checkHost(r); err != nil {
			return err
		}
		if err := a.checkOrigin(r); err != nil {
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
			return hint.Add(refuse(http.StatusForbidden, "the form has expired, or backout was restarted since"), "go back, reload the page and send it again")
		}
		return h(c, actor)
	}
}

// flash is what a change did, told once on the page that follows it.
type flash struct {
	Actor, What, Reason string
	At                  time.Time
}

const (
	// doneMost is how many of them wait to be told, doneLife for how long.
	doneMost = 256
	doneLife = 10 * time.Minute
)

// flashes hold results between a change and the page that follows it.
type flashes struct {
	mu   sync.Mutex
	byID map[string]flash
}

func (d *flashes) put(r flash) string {
	id := rand.Text()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byID == nil {
		d.byID = map[string]flash{}
	}
	for id, old := range d.byID {
		if r.At.Sub(old.At) > doneLife || len(d.byID) >= doneMost {
			delete(d.byID, id)
		}
	}
	d.byID[id] = r
	return id
}

// get returns what that actor's change did, nil where that is not known.
func (d *flashes) get(id, actor string) *flash {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, ok := d.byID[id]
	if !ok || r.Actor != actor {
		return nil
	}
	return &r
}
