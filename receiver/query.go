package receiver

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/receiver/notification"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
	// maxChange is the largest body of a change, maxReason its longest reason.
	maxChange = 64 << 10
	maxReason = 4 << 10
)

// query reads the parameters of an address: one that is not known, or is
// twice, is refused, since a misspelt filter would show or change too much.
func query(c echo.Context, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(c.Request().URL.RawQuery)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "malformed query: %v", err)
	}
	for name, list := range values {
		if !slices.Contains(known, name) {
			return nil, refuse(http.StatusBadRequest, "unknown parameter %q; known: [%s]", name, strings.Join(known, ", "))
		}
		if len(list) > 1 {
			return nil, refuse(http.StatusBadRequest, "parameter %q appears twice", name)
		}
	}
	return values, nil
}

// limit reads the parameter of that name; above the greatest it is the greatest.
func limit(values url.Values) (int, error) {
	text := values.Get("limit")
	if text == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if errors.Is(err, strconv.ErrRange) && !strings.HasPrefix(text, "-") {
		return maxLimit, nil
	}
	if err != nil || n < 1 {
		return 0, refuse(http.StatusBadRequest, "limit %q is not a number from 1 to %d", text, maxLimit)
	}
	return min(n, maxLimit), nil
}

// decodeChange reads the body of a change strictly: one object, known keys.
func decodeChange(c echo.Context, into any) error {
	r := c.Request()
	dec := json.NewDecoder(http.MaxBytesReader(c.Response(), r.Body, maxChange))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, err = dec.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = errors.New("there is more text after the object")
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d KiB", maxChange>>10)
	case errors.Is(err, io.EOF):
		return hint.Add(refuse(http.StatusBadRequest, "the body is empty"), `{"reason":"..."}`)
	}
	return refuse(http.StatusBadRequest, "body: %s", strings.TrimPrefix(notification.Explain(err).Error(), "malformed: json: "))
}

// checkReason returns a change's reason, which is required.
func checkReason(text string) (string, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return "", refuse(http.StatusBadRequest, "reason is required (it goes into the audit log)")
	case len(text) > maxReason:
		return "", refuse(http.StatusBadRequest, "reason is longer than %d bytes", maxReason)
	}
	return text, nil
}
