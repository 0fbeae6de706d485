package alerts

import (
	"fmt"
	"reflect"

	"go.yaml.in/yaml/v3"
)

// Document is a YAML file that was read as strictly as a playbook: an unknown key, a
// value of another type, a key given twice are problems with a line, and reported
// together.
type Document struct {
	d *decoder
	// unread: it is not one YAML document, and its content is unknown.
	unread bool
}

// Decode fills v, a pointer to a struct with yaml tags, from src. name is the file's name
// in problems, what its kind ("the scenario"), begin what to write into an empty one.
func Decode(name string, src []byte, v any, what, begin string) *Document {
	d := newDecoder(what, begin, name)
	return &Document{d: d, unread: d.whole(src, v) == nil}
}

// Has reports whether the file has a value at a path such as events[0].at.
func (doc *Document) Has(path string) bool { return doc.d.pos.has(path) }

// Line is the line of the value at a path, or of the nearest value around it.
func (doc *Document) Line(path string) int { return doc.d.pos.line(path) }

// Bad adds a problem of the value at path, unless one was reported of it already.
func (doc *Document) Bad(path, message, try string) {
	if !doc.unread {
		doc.d.at(path, message, try)
	}
}

// Err returns all problems, as Problems, or nil.
func (doc *Document) Err() error {
	if len(doc.d.list) == 0 {
		return nil
	}
	return doc.d.list.Sorted()
}

func newDecoder(what, begin, name string) *decoder {
	return &decoder{report: newReport(name), what: what, begin: begin, open: map[*yaml.Node]bool{}}
}

// whole fills v from a file's only document and returns its node; nil after a problem
// that leaves nothing to validate.
func (d *decoder) whole(src []byte, v any) *yaml.Node {
	root := d.document(src)
	if root == nil {
		return nil
	}
	d.value(root, reflect.ValueOf(v).Elem(), "")
	if d.values >= maxValues {
		d.list = Problems{{File: d.pos.file, Line: 1, Message: fmt.Sprintf("%s holds more than %d values, by its anchors or by itself", d.what, maxValues), Try: "write out anchors that are used inside other anchors"}}
		return nil
	}
	return root
}
