package receiver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/locotoki/backout/docs"
)

// contract is the document that the server serves, ready to check exchanges by.
type contract struct {
	Paths    map[string]map[string]operationDoc
	compiler *jsonschema.Compiler
	mu       sync.Mutex
	schemas  map[string]*jsonschema.Schema
}

// operationDoc is what the document says of an operation; of servers, which a path may
// have next to its operations, nothing.
type operationDoc struct {
	Parameters  []parameterDoc
	RequestBody struct{ Content contents }
	Responses   map[string]struct{ Content contents }
}

type parameterDoc struct {
	Name, In string
	Required bool
	Schema   struct {
		Type string
		Enum []string
	}
}

// contents are schemas by media type; each is a reference to a type, or none.
type contents map[string]struct {
	Schema struct {
		Ref string `json:"$ref"`
	}
}

var described = sync.OnceValues(func() (*contract, error) {
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(docs.OpenAPI), &doc); err != nil {
		return nil, err
	}
	c := &contract{Paths: map[string]map[string]operationDoc{}, compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	for path, methods := range doc.Paths {
		c.Paths[path] = map[string]operationDoc{}
		for method, raw := range methods {
			if method == "servers" {
				continue
			}
			var o operationDoc
			if err := json.Unmarshal(raw, &o); err != nil {
				return nil, err
			}
			c.Paths[path][strings.ToUpper(method)] = o
		}
	}
	root, err := jsonschema.UnmarshalJSON(strings.NewReader(docs.OpenAPI))
	if err != nil {
		return nil, err
	}
	c.compiler.AssertFormat()
	return c, c.compiler.AddResource("openapi.json", root)
})

// operation returns what the document says of a request, false if nothing.
func (c *contract) operation(r *http.Request) (operationDoc, bool) {
	parts := strings.Split(r.URL.Path, "/")
	best, most := "", -1
	for path := range c.Paths {
		said, literal := strings.Split(path, "/"), 0
		if len(said) != len(parts) {
			continue
		}
		for i, p := range said {
			if p == parts[i] {
				literal++
			} else if !strings.HasPrefix(p, "{") || parts[i] == "" {
				literal = -1
				break
			}
		}
		if literal > most {
			best, most = path, literal
		}
	}
	o, ok := c.Paths[best][r.Method]
	return o, ok
}

// body checks a body of one of the described media types. One without a schema may be empty.
func (c *contract) body(all contents, mediaType string, body []byte) error {
	kind, _, _ := mime.ParseMediaType(mediaType) // "" where it is malformed
	content, ok := all[kind]
	if !ok {
		content, ok = all["*/*"]
	}
	switch {
	case len(body) == 0 && (len(all) == 0 || all["application/json"].Schema.Ref == ""):
		return nil
	case !ok:
		return fmt.Errorf("the media type %q is not described", mediaType)
	case content.Schema.Ref == "":
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	schema := c.schemas[content.Schema.Ref]
	if schema == nil {
		if schema, err = c.compiler.Compile("openapi.json" + content.Schema.Ref); err != nil {
			return err
		}
		c.schemas[content.Schema.Ref] = schema
	}
	return schema.Validate(value)
}

// query checks the parameters of a request that was accepted.
func (o operationDoc) query(q url.Values) (errs []error) {
	for name, values := range q {
		i := slices.IndexFunc(o.Parameters, func(p parameterDoc) bool { return p.Name == name && p.In == "query" })
		if i < 0 {
			errs = append(errs, fmt.Errorf("the parameter %s is not described", name))
			continue
		}
		schema := o.Parameters[i].Schema
		if schema.Enum != nil && values[0] != "" && !slices.Contains(schema.Enum, values[0]) {
			errs = append(errs, fmt.Errorf("%s=%s is not described", name, values[0]))
		}
		if schema.Type == "integer" && strings.Trim(values[0], "0123456789") != "" {
			errs = append(errs, fmt.Errorf("%s=%s is not a number", name, values[0]))
		}
	}
	for _, p := range o.Parameters {
		if p.In == "query" && p.Required && !q.Has(p.Name) {
			errs = append(errs, fmt.Errorf("the parameter %s is described as required", p.Name))
		}
	}
	return errs
}

// exchange is an answer that is written to the test and kept, to be checked.
type exchange struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (e *exchange) WriteHeader(status int) {
	if e.status == 0 {
		e.status = status
	}
	e.ResponseWriter.WriteHeader(status)
}

func (e *exchange) Write(p []byte) (int, error) {
	if e.status == 0 {
		e.status = http.StatusOK
	}
	e.body.Write(p)
	return e.ResponseWriter.Write(p)
}

// Unwrap is http.ResponseController's.
func (e *exchange) Unwrap() http.ResponseWriter { return e.ResponseWriter }

// byContract lets h answer, and fails the test if the OpenAPI document does not describe
// the exchange. All tests of the server and of the status page send their requests
// through it.
func byContract(t testing.TB, h http.Handler, w http.ResponseWriter, r *http.Request) {
	if _, ok := t.(*testing.B); ok { // it would measure the check
		h.ServeHTTP(w, r)
		return
	}
	var sent bytes.Buffer
	asked := r.Clone(r.Context())
	if r.Body != nil {
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(r.Body, &sent), r.Body}
	}
	e := &exchange{ResponseWriter: w}
	h.ServeHTTP(e, r)
	asked.Body = io.NopCloser(bytes.NewReader(sent.Bytes()))
	for _, mistake := range undescribed(t, asked, e) {
		t.Errorf("docs/reference/openapi.json does not describe %s %s, which answers %d %.2000s:\n%s", r.Method, r.URL, e.status, &e.body, mistake)
	}
}

// undescribed says what of an exchange the document does not describe. A request that is
// refused may be anything; one that is accepted must be as described.
func undescribed(t testing.TB, r *http.Request, e *exchange) (errs []error) {
	c, err := described()
	if err != nil {
		t.Fatal(err)
	}
	if r.Method == http.MethodHead || e.status == http.StatusMethodNotAllowed { // GET's answer without its body, and no operation
		return nil
	}
	o, ok := c.operation(r)
	if !ok {
		if e.status == http.StatusNotFound { // nothing is there
			return nil
		}
		return []error{errors.New("no operation is described")}
	}
	answer, ok := o.Responses[strconv.Itoa(e.status)]
	if !ok {
		return []error{fmt.Errorf("the status %d is not described", e.status)}
	}
	if err := c.body(answer.Content, e.Header().Get("Content-Type"), e.body.Bytes()); err != nil {
		errs = append(errs, fmt.Errorf("the answer: %w", err))
	}
	if e.status >= http.StatusBadRequest || strings.HasPrefix(r.URL.Path, "/api/v1/webhook/") { // which takes malformed alerts too
		return errs
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = c.body(o.RequestBody.Content, r.Header.Get("Content-Type"), body)
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("the request: %w", err))
	}
	return append(errs, o.query(r.URL.Query())...)
}
