package receiver

import (
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/receiver/page"
	"github.com/locotoki/backout/remediation/view"
)

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

// showPage answers a page of the console.
func (s *Server) showPage(c echo.Context, status int, name string, data any) error {
	body, err := s.pages.Render(name, data)
	if err != nil {
		return err
	}
	h := c.Response().Header()
	page.SetHeaders(h, consolePolicy)
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
	if done := c.QueryParam("done"); done != "" {
		f.Result = s.csrf.flashed(done, f.Visitor.Name, f.Now)
	}
	var err error
	f.Stamp, err = s.stampOf(o)
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
	f, ok := s.pages.Files[c.Param("file")]
	if !ok {
		return echo.ErrNotFound
	}
	h := c.Response().Header()
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("X-Content-Type-Options", "nosniff")
	return c.Blob(http.StatusOK, f.ContentType, f.Body)
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
		if target := r.PostForm.Get("back"); page.BackTo.MatchString(target) {
			data.Back = target
		}
	}
	if err := s.showPage(c, status, "error", data); err != nil {
		s.logger.Error("cannot show an error page", "err", err)
		s.write(c.Response(), status, problem{words})
	}
}
