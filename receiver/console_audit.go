package receiver

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/receiver/page"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

const (
	// auditPageSize is how many entries a page of the audit log has.
	auditPageSize = 50
	// maxSearch is the longest text that is searched for, in characters.
	maxSearch = 200
	// exportBatch is how many entries an export reads at once, exportPatience how
	// long it waits for a reader to take them.
	exportBatch    = 1000
	exportPatience = 30 * time.Second
)

// auditFilter is what the audit page's form holds.
type auditFilter struct {
	Service, Kind, Incident, From, To, Text string
}

// values are the filter's as a query.
func (f auditFilter) values() url.Values {
	v := url.Values{}
	for name, text := range map[string]string{
		"service": f.Service, "kind": f.Kind, "incident": f.Incident, "from": f.From, "to": f.To, "text": f.Text,
	} {
		if text != "" {
			v.Set(name, text)
		}
	}
	return v
}

// auditPage shows the audit log, newest first.
func (s *Server) auditPage(c echo.Context, _ string) error {
	q, err := query(c, "service", "kind", "incident", "from", "to", "text", "before")
	if err != nil {
		return err
	}
	f := auditFilter{
		Service: q.Get("service"), Kind: q.Get("kind"), Incident: q.Get("incident"),
		From: q.Get("from"), To: q.Get("to"), Text: strings.TrimSpace(q.Get("text")),
	}
	search, err := f.search(q.Get("before"))
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	var found audit.Page
	var events []page.Event
	var chain chainState
	err = s.auditReads.take(ctx, func() (err error) {
		found, err = s.auditLog.Search(ctx, search)
		for _, e := range found.Entries {
			events = append(events, page.NewEvent(e))
		}
		chain, found.Entries = checkChain(found.Entries), nil
		return err
	})
	if err != nil {
		return err
	}
	o, err := s.incidents.Overview(ctx)
	if err != nil {
		return err
	}
	data := struct {
		frame
		Filter          auditFilter
		Kinds           []audit.Kind
		Services        []view.ServiceNow
		Entries         []page.Event
		Found           audit.Page
		Filtered, Full  bool
		Older, Newest   string
		Export          string
		Chain           chainState
		Before          int64
		UnknownService  bool
		UnknownIncident string
	}{
		frame: s.frame(c, "Audit log"), Filter: f, Kinds: audit.Kinds(), Services: o.Services, Found: found,
		Filtered: len(f.values()) > 0, Full: len(events) == auditPageSize, Before: search.Before,
		Entries: events, Chain: chain,
	}
	data.UnknownService = f.Service != ""
	for _, sv := range o.Services {
		data.UnknownService = data.UnknownService && sv.Service != f.Service
	}
	v := f.values()
	data.Newest = "/audit?" + v.Encode()
	if found.Before > 0 {
		v.Set("before", strconv.FormatInt(found.Before, 10))
		data.Older = "/audit?" + v.Encode()
	}
	export := url.Values{}
	for _, name := range []string{"service", "kind", "incident"} {
		if v.Has(name) {
			export.Set(name, v.Get(name))
		}
	}
	data.Export = "/audit/export?" + export.Encode()
	return s.showPage(c, http.StatusOK, "audit", data)
}

func (f auditFilter) search(before string) (audit.Query, error) {
	q := audit.Query{
		Service: f.Service, Incident: f.Incident, Kind: audit.Kind(f.Kind), Text: f.Text, Limit: auditPageSize,
	}
	if utf8.RuneCountInString(f.Text) > maxSearch {
		return q, refuse(http.StatusBadRequest, "the text to search for is longer than %d characters", maxSearch)
	}
	for _, t := range []struct {
		name, text string
		into       *time.Time
	}{{"from", f.From, &q.From}, {"to", f.To, &q.To}} {
		if t.text == "" {
			continue
		}
		at, err := parseMoment(t.text)
		if err != nil {
			return q, hint.Add(refuse(http.StatusBadRequest, "invalid %s %q", t.name, t.text), "a time such as 2026-11-22T03:00 (UTC)")
		}
		*t.into = at
	}
	if before != "" {
		n, err := strconv.ParseInt(before, 10, 64)
		if err != nil || n < 1 {
			return q, refuse(http.StatusBadRequest, "before %q is not the seq of an entry", before)
		}
		q.Before = n
	}
	return q, nil
}

// parseMoment reads what a browser's field for a time sends, as UTC, and RFC 3339.
func parseMoment(text string) (time.Time, error) {
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02", "2006-01-02 15:04"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Parse(time.RFC3339, text)
}

// chainState is what can be said of the chain from one page of it.
type chainState struct {
	Checked int
	// Linked: the entries follow one another without a gap, so that each one's prev was
	// compared too.
	Linked bool
	// Broken is the Seq of an entry that is not what its hash says, 0 for none.
	Broken int64
}

// checkChain looks at the hashes of entries, newest first.
func checkChain(entries []audit.Entry) chainState {
	st := chainState{Checked: len(entries), Linked: len(entries) > 1}
	for i, e := range entries {
		if e.Sum() != e.Hash {
			st.Broken = e.Seq
			return st
		}
		if i == 0 {
			continue
		}
		newer := entries[i-1]
		if newer.Seq != e.Seq+1 {
			st.Linked = false
		} else if newer.Prev != e.Hash {
			st.Broken = newer.Seq
			return st
		}
	}
	return st
}

// exportAudit writes the log, or what of it is asked for, one entry a line, as
// `backout audit export` does.
func (s *Server) exportAudit(c echo.Context, _ string) error {
	q, err := query(c, "service", "kind", "incident")
	if err != nil {
		return err
	}
	f := audit.Filter{
		Service: q.Get("service"), Kind: audit.Kind(q.Get("kind")), Incident: q.Get("incident"), Limit: exportBatch,
	}
	w, control := c.Response(), http.NewResponseController(c.Response())
	for first := true; ; first = false {
		var lines []byte
		err := s.auditReads.take(c.Request().Context(), func() error {
			entries, err := s.auditLog.Entries(c.Request().Context(), f)
			for _, e := range entries {
				line, err := e.MarshalJSON()
				if err != nil {
					return fmt.Errorf("export audit entry %d: %w", e.Seq, err)
				}
				lines = append(append(lines, line...), '\n')
				f.After = e.Seq
			}
			return err
		})
		if err != nil && first {
			return err
		}
		if err != nil {
			// The status is sent: only a broken connection tells that this is not all.
			s.logger.Error("an export of the audit log was cut off", "after", f.After, "err", err)
			panic(http.ErrAbortHandler)
		}
		if first {
			h := w.Header()
			h.Set("Content-Type", "application/x-ndjson; charset=utf-8")
			h.Set("Content-Disposition", `attachment; filename="backout-audit.ndjson"`)
			h.Set("Cache-Control", "no-store")
			h.Set("X-Content-Type-Options", "nosniff")
		}
		// A recorder of a test has no deadlines; a connection always has.
		_ = control.SetWriteDeadline(time.Now().Add(exportPatience))
		if _, err := w.Write(lines); err != nil {
			return fmt.Errorf("export the audit log: %w", err)
		}
		if len(lines) == 0 { // a page of large entries has fewer than were asked for
			return nil
		}
	}
}
