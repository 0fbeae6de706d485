package receiver

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation/view"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed static/*
var staticFiles embed.FS

// pages are the console's templates and the files that they refer to.
type pages struct {
	templates map[string]*template.Template
	// files are the static files by the name that carries their hash.
	files map[string]staticFile
	names map[string]string
}

type staticFile struct {
	kind string
	body []byte
}

// newPages parses what is embedded: each page with the layout and the parts that
// all of them share.
func newPages() (*pages, error) {
	p := &pages{templates: map[string]*template.Template{}, files: map[string]staticFile{}, names: map[string]string{}}
	kinds := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	static, err := fs.ReadDir(staticFiles, "static")
	if err != nil {
		return nil, fmt.Errorf("read static files: %w", err)
	}
	for _, f := range static {
		body, err := staticFiles.ReadFile("static/" + f.Name())
		if err != nil {
			return nil, fmt.Errorf("read static files: %w", err)
		}
		sum, ext := sha256.Sum256(body), path.Ext(f.Name())
		if kinds[ext] == "" {
			return nil, fmt.Errorf("static file %s is of no kind that is served", f.Name())
		}
		name := strings.TrimSuffix(f.Name(), ext) + "-" + hex.EncodeToString(sum[:6]) + ext
		p.files[name], p.names[f.Name()] = staticFile{kinds[ext], body}, "/static/"+name
	}
	base, err := template.New("base").Funcs(p.functions()).ParseFS(templateFiles, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, fmt.Errorf("parse templates: %w", err)
	}
	all, err := fs.Glob(templateFiles, "templates/page-*.html")
	if err != nil {
		return nil, fmt.Errorf("parse templates: %w", err)
	}
	for _, file := range all {
		t, err := base.Clone()
		if err == nil {
			t, err = t.ParseFS(templateFiles, file)
		}
		if err != nil {
			return nil, fmt.Errorf("parse templates: %w", err)
		}
		p.templates[strings.TrimSuffix(strings.TrimPrefix(path.Base(file), "page-"), ".html")] = t
	}
	return p, nil
}

// render writes a whole page, or none of it.
func (p *pages) render(name string, data any) ([]byte, error) {
	t, ok := p.templates[name]
	if !ok {
		return nil, fmt.Errorf("page %q not found", name)
	}
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, "layout.html", data); err != nil {
		return nil, fmt.Errorf("write page %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// visitor is who looks at a page.
type visitor struct {
	// Name is the token's, "" where none are configured.
	Name string
	// MayChange: forms are shown.
	MayChange bool
}

// frame is what every page of the console has around it.
type frame struct {
	Title string
	// Path is where the page is, for the navigation.
	Path    string
	Now     time.Time
	Visitor visitor
	CSRF    string
	// Result is what the change before this page did, nil where there was none.
	Result *flash
	// Stamp tells the state that the page shows from any other; with one, the page is
	// kept up to date while it is looked at.
	Stamp string
}

// consolePolicy lets a page of the console load this server's own files and talk to
// this server only.
const consolePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// pageHeaders are those of every page, for every reader.
func pageHeaders(h http.Header, policy string) {
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	// Not no-referrer: with that, browsers send forms with an Origin of null.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
}

// showPage answers a page of the console.
func (s *Server) showPage(c echo.Context, status int, name string, data any) error {
	body, err := s.pages.render(name, data)
	if err != nil {
		return err
	}
	h := c.Response().Header()
	pageHeaders(h, consolePolicy)
	h.Set("Cache-Control", "no-store")
	c.Response().WriteHeader(status)
	if _, err := c.Response().Write(body); err != nil {
		s.logger.Debug("client disconnected before the answer", "err", err)
	}
	return nil
}

// frame begins a page for the caller of c.
func (s *Server) frame(c echo.Context, title string) frame {
	v := s.visitor(c.Request())
	f := frame{Title: title, Path: c.Request().URL.Path, Now: s.now().UTC(), Visitor: v}
	if v.MayChange {
		f.CSRF = s.csrf.token(v.Name, f.Now)
	}
	return f
}

// liveFrame begins a page that shows o, and what the change before it did.
func (s *Server) liveFrame(c echo.Context, title string, o view.Overview) (frame, error) {
	f := s.frame(c, title)
	f.Now = o.Time
	if id := c.QueryParam("done"); id != "" {
		f.Result = s.flashes.get(id, f.Visitor.Name)
	}
	var err error
	f.Stamp, err = stampOf(o)
	return f, err
}

// visitor is who a request that was let in comes from.
func (s *Server) visitor(r *http.Request) visitor {
	a := s.access.Load()
	if len(a.tokens) == 0 {
		return visitor{}
	}
	t, _ := a.match(r)
	return visitor{Name: t.Name, MayChange: may(t.Role, changeState)}
}

// static answers a file whose name carries its hash: it never changes.
func (s *Server) static(c echo.Context) error {
	f, ok := s.pages.files[c.Param("file")]
	if !ok {
		return echo.ErrNotFound
	}
	h := c.Response().Header()
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("X-Content-Type-Options", "nosniff")
	return c.Blob(http.StatusOK, f.kind, f.body)
}

// wantsPage reports whether an error is read by a person in a browser.
func wantsPage(r *http.Request) bool {
	for _, prefix := range []string{"/api/", "/-/", "/metrics", "/slack/", "/static/"} {
		if strings.HasPrefix(r.URL.Path, prefix) {
			return false
		}
	}
	return strings.Contains(r.Header.Get("Accept"), "text/html")
}

// failPage answers an error as a page.
func (s *Server) failPage(c echo.Context, status int, words string) {
	r := c.Request()
	data := struct {
		frame
		Status int
		Words  string
		// Change: nothing was changed. Typed is the reason that the form held.
		Change      bool
		Typed, Back string
	}{frame: s.frame(c, "Not shown"), Status: status, Words: words, Back: "/"}
	if r.URL.Path == "/audit" && status == http.StatusBadRequest {
		data.Back = "/audit"
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		data.Title, data.Change = "Not changed", true
		data.Typed = r.PostForm.Get("reason") // of a form that was read
		if target := r.PostForm.Get("back"); backTo.MatchString(target) {
			data.Back = target
		}
	}
	if err := s.showPage(c, status, "error", data); err != nil {
		s.logger.Error("cannot show an error page", "err", err)
		s.write(c.Response(), status, problem{words})
	}
}
