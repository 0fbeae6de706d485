package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/locotoki/backout/remediation/jsonhttp"
)

const (
	// fieldManager is who metadata.managedFields says owns what backout wrote.
	fieldManager = "backout"

	jsonPatch = "application/json-patch+json"
)

// cluster is the API server of one cluster, as a context of the kubeconfig has it.
type cluster struct {
	jsonhttp.Server
	// renew loads the context anew.
	renew func() (*cluster, error)
}

// do sends one request. in and out are JSON, and may be nil. A request that is not authorized did nothing: it is sent once
// more, since the kubeconfig may have other credentials by now.
func (k *cluster) do(ctx context.Context, method, path, contentType string, in, out any) error {
	raw, _, err := k.Call(ctx, method, path, contentType, in)
	if jsonhttp.Answered(err) == http.StatusUnauthorized {
		fresh, ferr := k.renew()
		if ferr != nil {
			return errors.Join(err, ferr)
		}
		if fresh.Base != k.Base { // another API server, at which nothing was looked at
			return err
		}
		raw, _, err = fresh.Call(ctx, method, path, contentType, in)
	}
	if err == nil && out != nil {
		err = json.Unmarshal(raw, out)
	}
	return err
}
