package demo

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// engine is the Docker engine, asked over its own HTTP API: what the demo and
// the tests look at is seen without the code they prove.
type engine struct {
	host   string // as in DOCKER_HOST
	base   string
	client *http.Client
}

// apiVersion is the oldest API that engines here still speak (20.10) and new
// ones still answer.
const apiVersion = "/v1.41"

func newEngine(host string) (*engine, error) {
	scheme, address, ok := strings.Cut(host, "://")
	switch {
	case !ok:
	case scheme == "unix":
		var d net.Dialer
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", address) }
		return &engine{host: host, base: "http://docker", client: &http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
	case scheme == "tcp":
		return &engine{host: host, base: "http://" + address, client: &http.Client{}}, nil
	}
	return nil, fmt.Errorf("docker host %q is neither unix:///path nor tcp://host:port", host)
}

// do sends a request and decodes the answer into out, unless that is nil.
func (e *engine) do(ctx context.Context, method, path string, query url.Values, body io.Reader, out any) error {
	address := e.base + apiVersion + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-tar")
	}
	res, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("docker engine at %s: %w", e.host, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("docker engine at %s: %s %s: %w", e.host, method, path, err)
	}
	if res.StatusCode >= 300 && res.StatusCode != http.StatusNotModified {
		return &engineError{status: res.StatusCode, text: fmt.Sprintf("docker engine: %s %s: %s: %s", method, path, res.Status, bytes.TrimSpace(text))}
	}
	if out == nil {
		return nil
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = text
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("docker engine: %s %s: %w", method, path, err)
	}
	return nil
}

type engineError struct {
	status int
	text   string
}

func (e *engineError) Error() string { return e.text }

// gone forgives what is not there any more.
func gone(err error) error {
	var e *engineError
	if errors.As(err, &e) && e.status == http.StatusNotFound {
		return nil
	}
	return err
}

// ping returns the engine's version.
func (e *engine) ping(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var v struct{ Version string }
	err := e.do(ctx, http.MethodGet, "/version", nil, nil, &v)
	return v.Version, err
}

// build makes an image of files, which must hold a Dockerfile.
func (e *engine) build(ctx context.Context, files map[string][]byte, args map[string]string, tags ...string) error {
	var pack bytes.Buffer
	tw := tar.NewWriter(&pack)
	for name, text := range files {
		// A fixed time lets the engine find an equal image again.
		h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(text)), ModTime: time.Unix(0, 0)}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(text); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	asked, err := json.Marshal(args)
	if err != nil {
		return err
	}
	var said []byte
	query := url.Values{"t": tags, "buildargs": {string(asked)}, "rm": {"1"}, "forcerm": {"1"}}
	if err := e.do(ctx, http.MethodPost, "/build", query, &pack, &said); err != nil {
		return err
	}
	// A build that fails is answered 200, with the error in the stream.
	for line := range bytes.Lines(said) {
		var msg struct {
			Error string `json:"error"`
		}
		if err := json.Unmarshal(line, &msg); err == nil && msg.Error != "" {
			return fmt.Errorf("build image %s: %s", tags[0], msg.Error)
		}
	}
	return nil
}

// tag gives an image one more name.
func (e *engine) tag(ctx context.Context, image, name string) error {
	repository, tag, _ := strings.Cut(name, ":")
	return e.do(ctx, http.MethodPost, "/images/"+image+"/tag", url.Values{"repo": {repository}, "tag": {tag}}, nil, nil)
}

// imageID names an image for good; "" where there is none of that name.
func (e *engine) imageID(ctx context.Context, name string) (string, error) {
	var image struct {
		ID string `json:"Id"`
	}
	err := e.do(ctx, http.MethodGet, "/images/"+name+"/json", nil, nil, &image)
	return image.ID, gone(err)
}

// tags lists the names of a repository's images.
func (e *engine) tags(ctx context.Context, repository string) ([]string, error) {
	var images []struct{ RepoTags []string }
	query := url.Values{"filters": {fmt.Sprintf(`{"reference":[%q]}`, repository)}}
	if err := e.do(ctx, http.MethodGet, "/images/json", query, nil, &images); err != nil {
		return nil, err
	}
	var out []string
	for _, i := range images {
		for _, name := range i.RepoTags {
			if strings.HasPrefix(name, repository+":") {
				out = append(out, name)
			}
		}
	}
	return out, nil
}

// removeImages removes every tag of a repository, no matter who made it.
func (e *engine) removeImages(ctx context.Context, repository string) error {
	names, err := e.tags(ctx, repository)
	errs := []error{err}
	for _, name := range names {
		errs = append(errs, e.removeImage(ctx, name))
	}
	return errors.Join(errs...)
}

func (e *engine) removeImage(ctx context.Context, name string) error {
	return gone(e.do(ctx, http.MethodDelete, "/images/"+name, nil, nil, nil))
}

// container is one container as the engine lists it.
type container struct {
	ID      string `json:"Id"`
	Names   []string
	State   string
	ImageID string
	Labels  map[string]string
}

func projectFilter(project string) string {
	text, err := json.Marshal(map[string][]string{"label": {"com.docker.compose.project=" + project}})
	if err != nil {
		panic(err) // strings always have a JSON form
	}
	return string(text)
}

// containers lists a compose project's, stopped ones too.
func (e *engine) containers(ctx context.Context, project string) ([]container, error) {
	var out []container
	err := e.do(ctx, http.MethodGet, "/containers/json", url.Values{"all": {"1"}, "filters": {projectFilter(project)}}, nil, &out)
	return out, err
}

// stop stops a container the way a person does: it is not restarted.
func (e *engine) stop(ctx context.Context, id string) error {
	return e.do(ctx, http.MethodPost, "/containers/"+id+"/stop", url.Values{"t": {"1"}}, nil, nil)
}

// removeAside removes what a preflight that was killed had started aside in a network:
// it is not a container of the project.
func (e *engine) removeAside(ctx context.Context, network string) error {
	text, err := json.Marshal(map[string][]string{"label": {"backout.preflight"}, "network": {network}})
	if err != nil {
		return err
	}
	var list []container
	errs := []error{e.do(ctx, http.MethodGet, "/containers/json", url.Values{"all": {"1"}, "filters": {string(text)}}, nil, &list)}
	for _, c := range list {
		errs = append(errs, gone(e.do(ctx, http.MethodDelete, "/containers/"+c.ID, url.Values{"force": {"1"}, "v": {"1"}}, nil, nil)))
	}
	return errors.Join(errs...)
}

// purge removes a compose project's containers with their anonymous volumes,
// its networks and its volumes, whatever state a crash left them in.
func (e *engine) purge(ctx context.Context, project string) error {
	list, err := e.containers(ctx, project)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range list {
		errs = append(errs, gone(e.do(ctx, http.MethodDelete, "/containers/"+c.ID, url.Values{"force": {"1"}, "v": {"1"}}, nil, nil)))
	}
	filter := url.Values{"filters": {projectFilter(project)}}
	var networks []struct {
		ID string `json:"Id"`
	}
	errs = append(errs, e.do(ctx, http.MethodGet, "/networks", filter, nil, &networks))
	for _, n := range networks {
		errs = append(errs, e.removeAside(ctx, n.ID))
		errs = append(errs, gone(e.do(ctx, http.MethodDelete, "/networks/"+n.ID, nil, nil, nil)))
	}
	var volumes struct{ Volumes []struct{ Name string } }
	errs = append(errs, e.do(ctx, http.MethodGet, "/volumes", filter, nil, &volumes))
	for _, v := range volumes.Volumes {
		errs = append(errs, gone(e.do(ctx, http.MethodDelete, "/volumes/"+v.Name, nil, nil, nil)))
	}
	return errors.Join(errs...)
}
