// Package page writes the HTML of the console and of the public status page: the
// templates, the functions that they call, and the static files that they refer to.
// receiver's handlers collect the data and render it with a Pages.
//
// Its invariants:
//
//   - A page is written whole or not at all.
//   - A text from outside is cut to a bounded length and escaped by html/template.
//   - A page refers to this server's own files only, by names that carry their hash.
package page

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
	"sync"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed static/*
var staticFiles embed.FS

// Pages are the console's templates and the files that they refer to.
type Pages struct {
	templates map[string]*template.Template
	// Files are the static files by the name that carries their hash.
	Files map[string]File
	names map[string]string
}

// File is a static file as it is served.
type File struct {
	ContentType string
	Body        []byte
}

// New returns what is embedded, which a process parses once.
func New() (*Pages, error) { return embedded() }

var embedded = sync.OnceValues(parse)

// parse reads each page with the layout and the parts that all of them share.
func parse() (*Pages, error) {
	p := &Pages{templates: map[string]*template.Template{}, Files: map[string]File{}, names: map[string]string{}}
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
		p.Files[name], p.names[f.Name()] = File{kinds[ext], body}, "/static/"+name
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

// Render writes a whole page, or none of it.
func (p *Pages) Render(name string, data any) ([]byte, error) {
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

// RenderStatus writes the public page, which has no part of the console's around it.
func (p *Pages) RenderStatus(v any) ([]byte, error) {
	var b bytes.Buffer
	if err := p.templates["status"].ExecuteTemplate(&b, "status", v); err != nil {
		return nil, fmt.Errorf("write the status page: %w", err)
	}
	return b.Bytes(), nil
}

// SetHeaders are those of every page, for every reader.
func SetHeaders(h http.Header, policy string) {
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
