package swarm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

// do sends one request. in and out are JSON, and may be nil.
func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	version, err := c.apiVersion(ctx)
	if err != nil {
		return err
	}
	raw, header, err := c.server.Call(ctx, method, "/v"+version+path, "", in)
	if now := header.Get("Api-Version"); now != "" && now != version {
		c.mu.Lock()
		c.version = now
		c.mu.Unlock()
		switch {
		case method == http.MethodGet:
			raw, _, err = c.server.Call(ctx, method, "/v"+now+path, "", in)
		case err != nil: // the caller looks again, and changes what it sees by then
			err = fmt.Errorf("the Docker engine's API is %s by now, not %s: %w", now, version, jsonhttp.NoAnswer(err))
		}
	}
	if err == nil && out != nil {
		// As it is written: a number of nanoseconds has more digits than a float.
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		err = d.Decode(out)
	}
	return err
}

// apiVersion is the newest one that the engine speaks: of an older one, the answer lacks
// newer fields of a spec, which would then be lost. Every answer names it, since the engine
// may be upgraded, or put back, meanwhile.
func (c *Client) apiVersion(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version == "" {
		_, header, err := c.server.Call(ctx, http.MethodGet, "/_ping", "", nil)
		if err != nil {
			return "", hint.Add(err, "docker: {host: ...} in the configuration file")
		}
		if c.version = header.Get("Api-Version"); c.version == "" {
			return "", errors.New("the Docker engine does not name its API version")
		}
	}
	return c.version, nil
}
