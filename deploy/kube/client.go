// Package kube is a Kubernetes for the tests and the demo. A Server is a real API server with its controllers, a process
// of its own (apiserver/, a module of its own). A Node takes the place of scheduler and kubelet: it runs the pods of one
// namespace as processes of this machine. Everything listens on loopback addresses only.
package kube

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/hint"
)

// Env names the variable with the path of the admin's kubeconfig of a running Server. It is not KUBECONFIG, which may
// lead to a cluster that somebody needs.
const Env = "BACKOUT_KUBECONFIG"

// The kinds of PATCH.
const (
	JSONPatch      = "application/json-patch+json"
	MergePatch     = "application/merge-patch+json"
	StrategicPatch = "application/strategic-merge-patch+json"
	ApplyPatch     = "application/apply-patch+yaml"
)

// Client speaks to an API server as one user, with JSON by hand.
type Client struct {
	Server string // https://127.0.0.1:PORT
	CA     []byte // PEM
	Token  string
	http   *http.Client
}

// Error is an answer of the API server that is not 2xx.
type Error struct {
	Code            int
	Reason, Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%d %s: %s", e.Code, e.Reason, e.Message) }

// Code returns the HTTP status that the API server answered, or 0 if err is not its answer.
func Code(err error) int {
	var answer *Error
	if errors.As(err, &answer) {
		return answer.Code
	}
	return 0
}

// Open returns a client for a kubeconfig that has one user with a token; "" is the one that Env names.
func Open(path string) (*Client, error) {
	if path == "" {
		if path = os.Getenv(Env); path == "" {
			return nil, hint.Add(errors.New("no Kubernetes for tests: "+Env+" is not set"), "deploy/dev/kube.sh with COMMAND...")
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string `yaml:"server"`
				CA     string `yaml:"certificate-authority-data"`
			} `yaml:"cluster"`
		} `yaml:"clusters"`
		Users []struct {
			User struct {
				Token string `yaml:"token"`
			} `yaml:"user"`
		} `yaml:"users"`
	}
	if err := yaml.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(config.Clusters) != 1 || len(config.Users) != 1 {
		return nil, fmt.Errorf("%s: not one cluster and one user", path)
	}
	ca, err := base64.StdEncoding.DecodeString(config.Clusters[0].Cluster.CA)
	if err != nil {
		return nil, fmt.Errorf("%s: certificate-authority-data: %w", path, err)
	}
	return newClient(config.Clusters[0].Cluster.Server, ca, config.Users[0].User.Token), nil
}

func newClient(server string, ca []byte, token string) *Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 16}
	return &Client{server, ca, token, &http.Client{Transport: transport}}
}

// As returns a client for the holder of another token.
func (c *Client) As(token string) *Client { return newClient(c.Server, c.CA, token) }

// ServiceAccount returns a client for a service account, with a token that is valid for a day.
func (c *Client) ServiceAccount(ctx context.Context, namespace, name string) (*Client, error) {
	var answer struct{ Status struct{ Token string } }
	err := c.Do(ctx, http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+name+"/token", map[string]any{"spec": map[string]any{"expirationSeconds": 86400}}, &answer)
	if err != nil {
		return nil, fmt.Errorf("token for service account %s: %w", name, err)
	}
	return c.As(answer.Status.Token), nil
}

// Kubeconfig returns a kubeconfig of the client's user.
func (c *Client) Kubeconfig(namespace string) []byte {
	return []byte(strings.NewReplacer("SERVER", c.Server, "TOKEN", c.Token, "CA", base64.StdEncoding.EncodeToString(c.CA), "NAMESPACE", namespace).Replace(`apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "SERVER", certificate-authority-data: CA}}]
users: [{name: user, user: {token: "TOKEN"}}]
contexts: [{name: lab, context: {cluster: lab, user: user, namespace: "NAMESPACE"}}]
current-context: lab
`))
}

// Do sends in as JSON and decodes the answer into out; both may be nil. The method of a patch is "PATCH " and its kind.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err := io.Copy(io.Discard, resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// Get decodes the object at path into out.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.Do(ctx, http.MethodGet, path, nil, out)
}

// Patch sends a patch of a kind; a patch that is []byte goes as it is.
func (c *Client) Patch(ctx context.Context, kind, path string, in, out any) error {
	return c.Do(ctx, http.MethodPatch+" "+kind, path, in, out)
}

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	method, kind, _ := strings.Cut(method, " ")
	if kind == "" {
		kind = "application/json"
	}
	raw, ok := in.([]byte)
	if !ok && in != nil {
		var err error
		if raw, err = json.Marshal(in); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.Server+path, bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", kind)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	answer := &Error{Code: resp.StatusCode}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		answer.Message = resp.Status
	}
	return nil, fmt.Errorf("%s %s: %w", method, path, answer)
}

// watch lists path, and then calls each for every change, until an error. The list comes as one call of all.
func watch[T any](ctx context.Context, c *Client, path string, all func([]T), each func(kind string, object T)) error {
	var list struct {
		Metadata struct{ ResourceVersion string }
		Items    []T
	}
	if err := c.Get(ctx, path, &list); err != nil {
		return err
	}
	all(list.Items)
	resp, err := c.send(ctx, http.MethodGet, path+"?watch=1&resourceVersion="+list.Metadata.ResourceVersion, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var event struct {
			Type   string
			Object json.RawMessage
		}
		if err := d.Decode(&event); err != nil {
			return err
		}
		if event.Type == "ERROR" {
			return fmt.Errorf("watch %s: %s", path, event.Object)
		}
		var object T
		if err := json.Unmarshal(event.Object, &object); err != nil {
			return err
		}
		each(event.Type, object)
	}
}
