package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/receiver/notification"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// jsonTypes makes JSON Schemas of the types that are sent and printed as JSON. Meanings
// are the fields' comments, and values those of the enumerations, as keysReference reads
// them from the source.
type jsonTypes struct {
	*keysReference
	prefix string // of a reference to a type
	types  map[string]reflect.Type
	defs   schemaNode
}

func newJSONTypes(t *testing.T, prefix string) *jsonTypes {
	t.Helper()
	j := &jsonTypes{
		keysReference: &keysReference{t: t, tag: "json", comments: map[string]string{}, values: map[string][]string{}},
		prefix:        prefix, types: map[string]reflect.Type{}, defs: schemaNode{},
	}
	for _, dir := range []string{
		"alerts", "rules", "receiver", "receiver/statuspage", "receiver/notification", "receiver/report", "remediation", "remediation/audit", "remediation/view",
		"remediation/backtest", "remediation/plan", "remediation/scenario", "cmd/backout", "cmd/backout/follow",
	} {
		j.parse("../../" + dir)
	}
	// Text that is the names of numbers or of an interface.
	j.values["alerts.Risk"] = []string{alerts.Reversible.String(), alerts.Disruptive.String(), alerts.Lossy.String()}
	return j
}

// empties are the enumerations whose fields are empty where none applies.
var empties = []reflect.Type{reflect.TypeFor[remediation.Reason](), reflect.TypeFor[alerts.Unit]()}

// of is the schema of a value: of a struct a reference to it. In a request null stands
// for nothing.
func (j *jsonTypes) of(t reflect.Type, request bool) schemaNode {
	switch t {
	case reflect.TypeFor[time.Time]():
		return schemaNode{"type": "string", "format": "date-time"}
	case reflect.TypeFor[time.Duration]():
		return schemaNode{"type": "integer", "description": "In nanoseconds."}
	case reflect.TypeFor[model.Duration]():
		return schemaNode{"type": "string", "description": "As Prometheus writes durations: 15s, 5m, 1h30m."}
	case reflect.TypeFor[json.RawMessage]():
		return schemaNode{}
	}
	if values := j.values[nameOf(t)]; len(values) > 0 {
		if slices.Contains(empties, t) {
			values = append([]string{""}, slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })...)
		}
		return schemaNode{"type": "string", "enum": values}
	}
	if t.Kind() != reflect.Pointer && t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return schemaNode{"type": "string"}
	}
	if t.Implements(reflect.TypeFor[json.Marshaler]()) && t != reflect.TypeFor[audit.Entry]() && t.Kind() != reflect.Pointer {
		j.t.Fatalf("%s writes its own JSON; try: say in jsonTypes.of what it is", t)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return j.of(t.Elem(), request)
	case reflect.Slice:
		return schemaNode{"type": "array", "items": j.of(t.Elem(), request)}
	case reflect.Map:
		return schemaNode{"type": "object", "additionalProperties": j.of(t.Elem(), request)}
	case reflect.Struct:
		if t.NumField() == 0 { // of a list that is always empty
			return schemaNode{"type": "object"}
		}
		return j.reference(t, request)
	case reflect.Interface:
		return schemaNode{}
	case reflect.Bool:
		return schemaNode{"type": "boolean"}
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return schemaNode{"type": "integer"}
	case reflect.Float64:
		return schemaNode{"type": "number"}
	case reflect.String:
		return schemaNode{"type": "string"}
	}
	j.t.Fatalf("no schema for the type %s", t)
	return nil
}

// reference adds a struct to the definitions.
func (j *jsonTypes) reference(t reflect.Type, request bool) schemaNode {
	name := t.Name()
	if name == "" {
		j.t.Fatalf("%s has no name; try: a named type", t)
	}
	name = string(unicode.ToUpper(rune(name[0]))) + name[1:]
	if have := j.types[name]; have == nil {
		j.types[name] = t
		node := schemaNode{"type": "object", "properties": schemaNode{}}
		if t.PkgPath() != reflect.TypeFor[notification.Body]().PkgPath() { // Alertmanager sends more
			node["additionalProperties"] = false
		}
		j.defs[name] = node
		j.fields(node, t, request)
	} else if have != t {
		j.t.Fatalf("both %s and %s are %s in JSON Schemas; try: another name for one of them", have, t, name)
	}
	return schemaNode{"$ref": j.prefix + name}
}

// fields adds those of a struct, and of the structs that are embedded in it.
func (j *jsonTypes) fields(node schemaNode, t reflect.Type, request bool) {
	properties := node["properties"].(schemaNode)
	required, _ := node["required"].([]string)
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			node["required"] = required
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			j.fields(node, inner, request)
			required, _ = node["required"].([]string)
			continue
		case !f.IsExported() || name == "-":
			continue
		case name == "":
			name = f.Name
		}
		value := j.of(f.Type, request)
		optional := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		if f.Type.Kind() == reflect.Pointer && (!optional || request) {
			value = nullable(value)
		}
		if !optional && !slices.Contains(required, name) {
			required = append(required, name)
		}
		if meaning := j.meaning(t, f, name); meaning != "" {
			if more, ok := value["description"].(string); ok {
				meaning += " " + more
			}
			value["description"] = meaning
		}
		properties[name] = value
	}
	if required != nil {
		node["required"] = required
	}
}

func nullable(n schemaNode) schemaNode {
	if n["$ref"] != nil {
		return schemaNode{"anyOf": []any{n, schemaNode{"type": "null"}}}
	}
	if t, ok := n["type"].(string); ok && n["enum"] == nil {
		n["type"] = []any{t, "null"}
	}
	return n
}

var identifier = regexp.MustCompile(`\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b`)

// meaning is a field's comment, with the names that its struct has in JSON.
func (j *jsonTypes) meaning(t reflect.Type, f reflect.StructField, name string) string {
	text := j.comment(t, f)
	if text == "" {
		return ""
	}
	return identifier.ReplaceAllStringFunc(sentence(text, f.Name, name), func(id string) string {
		if other, ok := t.FieldByName(id); ok {
			if in, _, _ := strings.Cut(other.Tag.Get("json"), ","); in != "" {
				return in
			}
		}
		return id
	})
}

// openAPI is the OpenAPI document of the server.
func openAPI(t *testing.T) string {
	j := newJSONTypes(t, "#/components/schemas/")
	problem := func() schemaNode { return schemaNode{"schema": schemaNode{"$ref": j.prefix + "Problem"}} }
	paths := schemaNode{}
	for _, o := range receiver.Operations() {
		op := schemaNode{"summary": o.Summary, "tags": []string{o.Group}, "operationId": operationID(o)}
		answer := schemaNode{"description": "Done."}
		content := schemaNode{}
		switch {
		case o.Path == "/api/v1/openapi.json":
			content["application/json"] = schemaNode{"schema": schemaNode{"type": "object"}}
		case o.Answer != nil:
			content["application/json"] = schemaNode{"schema": j.of(o.Answer, false)}
		case o.Media != "":
			content[o.Media] = schemaNode{}
		}
		if len(content) > 0 {
			answer["content"] = content
		}
		responses := schemaNode{strconv.Itoa(max(o.Status, http.StatusOK)): answer}
		for _, status := range o.Refusals {
			refusal := schemaNode{"description": http.StatusText(status) + ".", "content": schemaNode{"application/json": problem()}}
			if o.Page {
				refusal["content"].(schemaNode)["text/html"] = schemaNode{}
			}
			if o.Public {
				refusal["content"] = schemaNode{"text/plain": schemaNode{}}
			}
			responses[strconv.Itoa(status)] = refusal
		}
		if o.Public {
			responses["304"] = schemaNode{"description": "It is what If-None-Match names."}
		}
		op["responses"] = responses
		op["security"] = []any{}
		if o.Role != "" {
			op["security"] = []any{schemaNode{"bearer": []string{}}, schemaNode{"basic": []string{}}}
			op["description"] = rolesOf(o)
		}
		var parameters []any
		for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(o.Path, -1) {
			parameters = append(parameters, schemaNode{"name": m[1], "in": "path", "required": true, "schema": schemaNode{"type": "string"}})
		}
		for _, q := range o.Query {
			p := schemaNode{"name": q.Name, "in": "query", "schema": j.of(q.Type, true)}
			if q.Meaning != "" {
				p["description"] = q.Meaning
			}
			if q.Required {
				p["required"] = true
			}
			if q.Name == "limit" {
				p["schema"].(schemaNode)["minimum"] = 1
			}
			parameters = append(parameters, p)
		}
		if parameters != nil {
			op["parameters"] = parameters
		}
		switch {
		case o.Body != nil:
			op["requestBody"] = schemaNode{"required": true, "content": schemaNode{"application/json": schemaNode{"schema": j.of(o.Body, true)}}}
		case o.Form:
			form := schemaNode{"schema": schemaNode{"type": "object", "additionalProperties": schemaNode{"type": "string"}}}
			op["requestBody"] = schemaNode{"required": true, "content": schemaNode{"application/x-www-form-urlencoded": form}}
		}
		at, _ := paths[o.Path].(schemaNode)
		if at == nil {
			at = schemaNode{}
			paths[o.Path] = at
		}
		if o.Public {
			at["servers"] = []any{schemaNode{"url": "http://127.0.0.1:9098", "description": "The listener of the public status page, --web.status-listen-address."}}
		}
		at[strings.ToLower(o.Method)] = op
	}
	j.defs["Problem"] = schemaNode{
		"type": "object", "properties": schemaNode{"error": schemaNode{"type": "string", "description": "What is wrong, and what to do next."}},
		"required": []string{"error"}, "additionalProperties": false,
	}
	return schemaText(t, schemaNode{
		"openapi": "3.1.0",
		"info": schemaNode{
			"title": "backout", "version": "1", "license": schemaNode{"name": "Apache-2.0", "identifier": "Apache-2.0"},
			"description": "Automatic rollback for canary releases. Generated by make generate: do not edit. Every address that answers GET answers HEAD too. " +
				"A change needs Content-Type: application/json, and a Host and an Origin that are this server's own. " +
				"Without tokens in the configuration, backout listens on loopback only, takes notifications and shows its state; nothing can be changed.",
		},
		"servers": []any{schemaNode{"url": "http://127.0.0.1:9099", "description": "The listener of --web.listen-address."}},
		"tags": []any{
			schemaNode{"name": "api", "description": "For programs."}, schemaNode{"name": "operation", "description": "Metrics, health and reload."},
			schemaNode{"name": "console", "description": "Pages for people. Their content may change in every version."},
			schemaNode{"name": "public", "description": "The public status page."}, schemaNode{"name": "slack", "description": "Called by Slack."},
		},
		"paths": paths,
		"components": schemaNode{
			"schemas": j.defs,
			"securitySchemes": schemaNode{
				"bearer": schemaNode{"type": "http", "scheme": "bearer", "description": "A token of the configuration."},
				"basic":  schemaNode{"type": "http", "scheme": "basic", "description": "The token's name as user, the token as password."},
			},
		},
	})
}

// rolesOf says whose token an operation takes.
func rolesOf(o receiver.Operation) string {
	if o.Role == config.Commander {
		return "Role: commander."
	}
	return fmt.Sprintf("Role: %s or commander.", o.Role)
}

// operationID names an operation for generated clients: postIncidentsByIdClaim.
func operationID(o receiver.Operation) string {
	id := strings.ToLower(o.Method)
	switch o.Group {
	case "console":
		id += "Page"
	case "public":
		id += "Public"
	}
	for _, word := range strings.FieldsFunc(strings.TrimPrefix(o.Path, "/api/v1"), func(r rune) bool { return !unicode.IsLetter(r) && r != '{' }) {
		if rest, ok := strings.CutPrefix(word, "{"); ok {
			word = "by" + strings.ToUpper(rest[:1]) + rest[1:]
		}
		id += strings.ToUpper(word[:1]) + word[1:]
	}
	return id
}

// outputSchema is the JSON Schema of what the commands print with --output=json.
func outputSchema(t *testing.T, answers map[string][]reflect.Type) string {
	j := newJSONTypes(t, "#/$defs/")
	commands := schemaNode{}
	for command, types := range answers {
		var any []any
		for _, answer := range types {
			any = append(any, j.of(answer, false))
		}
		commands[command] = schemaNode{"anyOf": any}
	}
	return schemaText(t, schemaNode{
		"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "backout --output=json",
		"$comment":    "Generated by make generate. Do not edit.",
		"type":        "object",
		"description": "The value of each property is what the command of that name prints. A command that follows prints one value per line.",
		"properties":  commands, "additionalProperties": false, "$defs": j.defs,
	})
}

func schemaText(t *testing.T, schema schemaNode) string {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(schema); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// answerName is a type's name in the schema of outputs.
func answerName(t reflect.Type) string {
	name := path.Base(t.Name())
	return strings.ToUpper(name[:1]) + name[1:]
}
