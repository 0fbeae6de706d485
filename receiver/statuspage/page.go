// Package statuspage is the public status page: words for customers, and none of what
// happens inside. cmd/backout makes it from the engine; receiver.ServePublic serves it.
//
// Invariants:
//   - It has none of the console's addresses, no script, and asks for no token.
//   - However many ask, the store is looked at once in two seconds at most.
//   - An answer that says nothing new is the same to the byte, so that caches see it.
package statuspage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/locotoki/backout/receiver/page"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// Source is what the public page needs from the engine.
type Source interface {
	PublicPage(ctx context.Context, past time.Duration) (view.PublicPage, error)
}

// Page is the public status page: words for customers, and none of what
// happens inside. It is an http.Handler for a listener of its own, which has none of the
// console's addresses and asks for no token.
type Page struct {
	source Source
	logger *slog.Logger
	now    func() time.Time
	pages  *page.Pages
	mux    *http.ServeMux

	mu   sync.Mutex
	made time.Time
	// html and json are what was made last; blank: it says nothing, since no playbook
	// names components.
	html, json statusBody
	blank      bool
}

// statusBody is an answer with its tag.
type statusBody struct {
	body []byte
	etag string
}

const (
	// statusPast is how long the page shows what is resolved.
	statusPast = 14 * 24 * time.Hour
	// statusFresh is how long an answer is given again without a look at the store, so
	// that the public cannot keep it busy.
	statusFresh = 2 * time.Second
	// statusMaxAge is how long caches may keep an answer, in seconds.
	statusMaxAge = 15
	// statusTimeout bounds making one.
	statusTimeout = 5 * time.Second
)

// New returns the page of a source.
func New(source Source, logger *slog.Logger, now func() time.Time) (*Page, error) {
	pages, err := page.New()
	if err != nil {
		return nil, fmt.Errorf("build status page: %w", err)
	}
	p := &Page{source: source, logger: logger, now: now, pages: pages, mux: http.NewServeMux()}
	p.mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		p.answer(w, r, "text/html; charset=utf-8", func() statusBody { return p.html })
	})
	p.mux.HandleFunc("GET /status/api/v2/summary.json", func(w http.ResponseWriter, r *http.Request) {
		// Pages of others may show it: it is public.
		w.Header().Set("Access-Control-Allow-Origin", "*")
		p.answer(w, r, "application/json; charset=utf-8", func() statusBody { return p.json })
	})
	p.mux.HandleFunc("GET /static/{file}", func(w http.ResponseWriter, r *http.Request) {
		f, ok := pages.Files[r.PathValue("file")]
		if !ok || strings.HasPrefix(f.ContentType, "text/javascript") { // the public page has no script
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", f.ContentType)
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		p.write(w, f.Body)
	})
	p.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/status", http.StatusFound)
	})
	return p, nil
}

// statusPolicy lets the page load its own style and nothing else.
const statusPolicy = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// ServeHTTP implements http.Handler.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	page.SetHeaders(w.Header(), statusPolicy)
	w.Header().Del("Content-Type") // each answer says its own
	p.mux.ServeHTTP(w, r)
}

func (p *Page) answer(w http.ResponseWriter, r *http.Request, kind string, which func() statusBody) {
	p.mu.Lock()
	err := p.refresh(r.Context())
	b, blank := which(), p.blank
	p.mu.Unlock()
	h := w.Header()
	if err != nil {
		p.logger.Error("cannot build the public status page", "err", err)
		h.Set("Cache-Control", "no-store")
		h.Set("Retry-After", "30")
		h.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusServiceUnavailable)
		p.write(w, []byte("The status is not known right now. Please look again in a minute.\n"))
		return
	}
	if blank {
		http.Error(w, "There is no status page here.", http.StatusNotFound)
		return
	}
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", statusMaxAge))
	h.Set("ETag", b.etag)
	for _, tag := range strings.Split(r.Header.Get("If-None-Match"), ",") {
		if tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/"); tag == b.etag || tag == "*" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	p.write(w, b.body)
}

func (p *Page) write(w http.ResponseWriter, body []byte) {
	if _, err := w.Write(body); err != nil {
		p.logger.Debug("client disconnected before the answer", "err", err)
	}
}

// refresh makes both answers anew where they are old; p.mu is held.
func (p *Page) refresh(ctx context.Context) error {
	now := p.now()
	if age := now.Sub(p.made); !p.made.IsZero() && age >= 0 && age < statusFresh {
		return nil
	}
	// The first caller may go away; the others wait for the same answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusTimeout)
	defer cancel()
	page, err := p.source.PublicPage(ctx, statusPast)
	if err != nil {
		return err
	}
	// Its time is that of the last change, not of this request: an answer that says
	// nothing new is the same to the byte, and caches see that.
	page.Time = lastChange(page)
	summary, err := json.Marshal(summarize(page))
	if err != nil {
		return fmt.Errorf("write summary: %w", err)
	}
	html, err := p.pages.RenderStatus(statusView{PublicPage: page, Overall: overall(page)})
	if err != nil {
		return err
	}
	p.blank = len(page.Components)+len(page.Open)+len(page.Past) == 0
	p.html, p.json, p.made = tagged(html), tagged(append(summary, '\n')), now
	return nil
}

func tagged(body []byte) statusBody {
	sum := sha256.Sum256(body)
	return statusBody{body, `"` + hex.EncodeToString(sum[:12]) + `"`}
}

// lastChange is when the public was last told anything, zero where it never was.
func lastChange(p view.PublicPage) (at time.Time) {
	for _, all := range [][]remediation.PublicIncident{p.Open, p.Past} {
		for _, inc := range all {
			if inc.Updated.After(at) {
				at = inc.Updated.UTC()
			}
		}
	}
	return at
}
