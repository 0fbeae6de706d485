package receiver

import "github.com/labstack/echo/v4"

// showPlot answers one trigger's values around an incident; without a trigger,
// those of the first that has an expression.
func (s *Server) showPlot(c echo.Context, _ string) error {
	q, err := query(c, "trigger")
	if err != nil {
		return err
	}
	p, err := s.incidents.Plot(c.Request().Context(), c.Param("id"), q.Get("trigger"))
	if err != nil {
		return err
	}
	p.Points, p.Marks = notNull(p.Points), notNull(p.Marks)
	return s.answer(c, p)
}
