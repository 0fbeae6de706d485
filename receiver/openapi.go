package receiver

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/docs"
)

// showOpenAPI answers the description of all operations.
func (s *Server) showOpenAPI(c echo.Context, _ string) error {
	if _, err := query(c); err != nil {
		return err
	}
	s.writeBody(c.Response(), http.StatusOK, []byte(docs.OpenAPI))
	return nil
}
