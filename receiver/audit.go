package receiver

import (
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/remediation/audit"
)

// entryList is a page of the audit log.
type entryList struct {
	Entries []audit.Entry `json:"entries"`
	// Next is what to pass as after to go on, now or once there is more.
	Next int64 `json:"next"`
}

// auditHead is the audit log's last entry.
type auditHead struct {
	Seq  int64  `json:"seq"`
	Hash string `json:"hash"`
}

// listEntries answers an entryList, oldest first.
func (s *Server) listEntries(c echo.Context, _ string) error {
	q, err := query(c, "incident", "service", "kind", "after", "limit")
	if err != nil {
		return err
	}
	n, err := limit(q)
	if err != nil {
		return err
	}
	f := audit.Filter{
		Incident: q.Get("incident"),
		Service:  q.Get("service"),
		Kind:     audit.Kind(q.Get("kind")),
		Limit:    n,
	}
	if text := q.Get("after"); text != "" {
		if f.After, err = strconv.ParseInt(text, 10, 64); err != nil || f.After < 0 {
			return refuse(http.StatusBadRequest, "after %q is not the seq of an entry", text)
		}
	}
	ctx, next, body := c.Request().Context(), f.After, []byte(`{"entries":[`)
	err = s.auditReads.take(ctx, func() error {
		entries, err := s.auditLog.Entries(ctx, f)
		for i, e := range entries {
			if i > 0 {
				body = append(body, ',')
			}
			// Not json.Marshal, which would escape what the hash is over.
			one, err := e.MarshalJSON()
			if err != nil {
				return err
			}
			body = append(body, one...)
			next = e.Seq
		}
		return err
	})
	if err != nil {
		return err
	}
	body = append(body, `],"next":`...)
	body = strconv.AppendInt(body, next, 10)
	s.writeBody(c.Response(), http.StatusOK, append(body, '}', '\n'))
	return nil
}

func (s *Server) showHead(c echo.Context, _ string) error {
	if _, err := query(c); err != nil {
		return err
	}
	seq, hash, err := s.auditLog.Head(c.Request().Context())
	if err != nil {
		return err
	}
	return s.answer(c, auditHead{seq, hash})
}
