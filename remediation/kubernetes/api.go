package kubernetes

import (
	"context"
	"encoding/json"

	"github.com/locotoki/backout/remediation/jsonhttp"
)

const (
	// fieldManager is who metadata.managedFields says owns what backout wrote.
	fieldManager = "backout"

	jsonPatch = "application/json-patch+json"
)

// cluster is the API server of one cluster.
type cluster struct{ jsonhttp.Server }

// do sends one request. in and out are JSON, and may be nil.
func (k *cluster) do(ctx context.Context, method, path, contentType string, in, out any) error {
	raw, _, err := k.Call(ctx, method, path, contentType, in)
	if err == nil && out != nil {
		err = json.Unmarshal(raw, out)
	}
	return err
}
