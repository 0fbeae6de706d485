package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Apply creates or changes the objects of a manifest, one YAML document each, as `kubectl apply --server-side` does. An
// object without a namespace is put into the given one.
func (c *Client) Apply(ctx context.Context, namespace string, manifest []byte) error {
	for d := yaml.NewDecoder(bytes.NewReader(manifest)); ; {
		var o object
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if o == nil {
			continue // a document of comments
		}
		path, err := c.Path(ctx, namespace, o)
		if err != nil {
			return err
		}
		if err := c.Patch(ctx, ApplyPatch, path+"?fieldManager=kubectl&force=true", o, nil); err != nil {
			return err
		}
	}
}

// Path returns the path of an object, whose resource the API server is asked for. An object without a namespace is one
// of the given one.
func (c *Client) Path(ctx context.Context, namespace string, o map[string]any) (string, error) {
	version, _ := o["apiVersion"].(string)
	kind, _ := o["kind"].(string)
	meta, _ := o["metadata"].(object)
	name, _ := meta["name"].(string)
	if version == "" || kind == "" || name == "" {
		return "", errors.New("an object without apiVersion, kind or name")
	}
	group := "/api/" + version
	if strings.Contains(version, "/") {
		group = "/apis/" + version
	}
	var list struct {
		Resources []struct {
			Name, Kind string
			Namespaced bool
		}
	}
	if err := c.Get(ctx, group, &list); err != nil {
		return "", err
	}
	for _, r := range list.Resources {
		if r.Kind != kind || strings.Contains(r.Name, "/") {
			continue
		}
		if !r.Namespaced {
			return group + "/" + r.Name + "/" + name, nil
		}
		if own, ok := meta["namespace"].(string); ok {
			namespace = own
		}
		return group + "/namespaces/" + namespace + "/" + r.Name + "/" + name, nil
	}
	return "", &Error{http.StatusNotFound, "NotFound", fmt.Sprintf("no kind %s in %s", kind, version)}
}
