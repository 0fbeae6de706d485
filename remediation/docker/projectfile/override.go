package projectfile

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/locotoki/backout/hint"
)

// An override file is edited as text, at the places the YAML parser names, so
// that everything else in it stays as the operator wrote it. Each line that is
// added ends with overrideMark; lines with it go again when nothing is left
// below them.

// OverrideMark ends each line of an override file that backout wrote.
const OverrideMark = " # backout"

const overrideHead = "# Written by backout: keeps a flag off where .env alone cannot. Remove the flag's line to let .env decide again.\n"

// place is where a variable is in an override file.
type place struct {
	path []*yaml.Node // the keys services, the service, environment; those that are there
	env  *yaml.Node   // environment's value
	node *yaml.Node   // the entry's value, or a list's item
	key  *yaml.Node   // the entry's key, nil in a list
}

func findOverride(file []byte, service, name string) (place, error) {
	var p place
	var doc yaml.Node
	if err := yaml.Unmarshal(file, &doc); err != nil {
		return p, err
	}
	if doc.Kind == 0 {
		return p, nil
	}
	at := doc.Content[0]
	for _, key := range []string{"services", service, "environment"} {
		k, v := entry(at, key)
		if k == nil {
			return p, nil
		}
		p.path, at = append(p.path, k), v
	}
	p.env = at
	if p.key, p.node = entry(at, name); p.key != nil {
		return p, nil
	}
	if at.Kind == yaml.SequenceNode {
		for _, item := range at.Content {
			if k, _, _ := strings.Cut(item.Value, "="); k == name {
				p.node = item
			}
		}
	}
	return p, nil
}

// entry returns the key and value of a block or flow mapping; no alias is
// followed, since what it stands for may be used elsewhere.
func entry(n *yaml.Node, key string) (k, v *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

// ReadOverride returns what an override file holds of name.
func ReadOverride(file []byte, service, name string) (Entry, error) {
	p, err := findOverride(file, service, name)
	if err != nil || p.node == nil {
		return Entry{State: entryAbsent}, err
	}
	from, to, err := scalarAt(file, p.node)
	if err != nil {
		return Entry{}, err
	}
	return Entry{State: entrySet, Raw: string(file[from:to])}, nil
}

// SetOverride returns the override file with name set to the literal value for
// service. An empty file becomes one of our own.
func SetOverride(file []byte, service, name, value string) ([]byte, error) {
	if !PlainValue.MatchString(value) || !PlainValue.MatchString(service) {
		return nil, hint.Add(fmt.Errorf("%s=%q for service %q: cannot be written to an override file", name, value, service), "letters, digits and ._:/@%%+,- only")
	}
	p, err := findOverride(file, service, name)
	if err != nil {
		return nil, err
	}
	var out []byte
	if p.node != nil {
		from, to, err := scalarAt(file, p.node)
		if err != nil {
			return nil, err
		}
		text := strconv.Quote(value)
		if p.key == nil {
			text = strconv.Quote(name + "=" + value)
		}
		out = splice(file, from, to, text)
	} else if out, err = insertOverride(file, p, service, name, value); err != nil {
		return nil, err
	}
	return out, CheckOverride(out, service, name, value)
}

// CheckOverride says why an override file cannot set a variable of a service, or returns nil.
func CheckOverride(file []byte, service, name, value string) error {
	p, err := findOverride(file, service, name)
	if err != nil {
		return err
	}
	if p.node != nil && (p.node.Value == value && p.key != nil || p.node.Value == name+"="+value && p.key == nil) {
		return nil
	}
	return hint.Add(fmt.Errorf("%s cannot be set here for service %s", name, service), "set it by hand")
}

func insertOverride(file []byte, p place, service, name, value string) ([]byte, error) {
	lines := []string{"services:", service + ":", "environment:", name + ": " + strconv.Quote(value)}
	if len(bytes.TrimSpace(file)) == 0 {
		return []byte(overrideHead + block(lines, 0)), nil
	}
	if len(p.path) == 0 {
		if len(file) > 0 && file[len(file)-1] != '\n' {
			return nil, hint.Add(errors.New("it has no services and no newline at its end"), "add a newline")
		}
		return append(append([]byte(nil), file...), block(lines, 0)...), nil
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(file, &doc); err != nil {
		return nil, err
	}
	at := doc.Content[0]
	for _, k := range p.path {
		_, at = entry(at, k.Value)
	}
	if (at.Kind != yaml.MappingNode && at.Kind != yaml.SequenceNode) || at.Style&yaml.FlowStyle != 0 || len(at.Content) == 0 {
		return nil, hint.Add(fmt.Errorf("line %d: %s is not a plain block", p.path[len(p.path)-1].Line, p.path[len(p.path)-1].Value),
			"write one entry per line, or set %s by hand", name)
	}
	lines = lines[len(p.path):]
	column := at.Content[0].Column
	if at.Kind == yaml.SequenceNode {
		column = at.Column
		lines = []string{"- " + strconv.Quote(name+"="+value)}
	}
	from := lineStart(file, at.Content[0].Line)
	return splice(file, from, from, block(lines, column-1)), nil
}

// block writes lines, each one deeper than the one before.
func block(lines []string, indent int) string {
	var b strings.Builder
	for i, l := range lines {
		fmt.Fprintf(&b, "%s%s%s\n", strings.Repeat(" ", indent+2*i), l, OverrideMark)
	}
	return b.String()
}

// PutOverride returns the override file with name as entry has it. It
// returns nil where nothing but our own remarks would be left.
func PutOverride(file []byte, service, name string, e Entry) ([]byte, error) {
	p, err := findOverride(file, service, name)
	if err != nil {
		return nil, err
	}
	if e.State == entrySet {
		if p.node == nil {
			return nil, hint.Add(fmt.Errorf("%s is gone for service %s", name, service), "set it by hand to %s", e.Raw)
		}
		from, to, err := scalarAt(file, p.node)
		if err != nil {
			return nil, err
		}
		return splice(file, from, to, e.Raw), nil
	}
	if p.node == nil {
		return file, nil
	}
	file, err = dropLine(file, p.node.Line)
	if err != nil {
		return nil, err
	}
	// The keys above go with it if they were put there for it.
	for i := len(p.path) - 1; i >= 0 && childless(file, p.path[:i+1]); i-- {
		if file, err = dropLine(file, p.path[i].Line); err != nil {
			break
		}
	}
	if len(bytes.TrimSpace(bytes.TrimPrefix(file, []byte(overrideHead)))) == 0 {
		return nil, nil
	}
	return file, nil
}

// childless reports whether nothing is left below a key.
func childless(file []byte, path []*yaml.Node) bool {
	var doc yaml.Node
	if err := yaml.Unmarshal(file, &doc); err != nil || doc.Kind == 0 {
		return false
	}
	at := doc.Content[0]
	for _, k := range path {
		_, at = entry(at, k.Value)
		if at == nil {
			return false
		}
	}
	return at.Kind == yaml.ScalarNode && at.ShortTag() == "!!null"
}

// dropLine takes out a line that we added.
func dropLine(file []byte, line int) ([]byte, error) {
	from, to := lineStart(file, line), lineStart(file, line+1)
	if !bytes.HasSuffix(bytes.TrimRight(file[from:to], "\r\n"), []byte(OverrideMark)) {
		return file, hint.Add(fmt.Errorf("line %d was not written by backout", line), "remove it by hand")
	}
	return splice(file, from, to, ""), nil
}

// lineStart returns where a line begins; the first is 1.
func lineStart(file []byte, line int) int {
	at := 0
	for ; line > 1; line-- {
		i := bytes.IndexByte(file[at:], '\n')
		if i < 0 {
			return len(file)
		}
		at += i + 1
	}
	return at
}

// scalarAt returns where a scalar on one line is in the file.
func scalarAt(file []byte, n *yaml.Node) (from, to int, err error) {
	from = lineStart(file, n.Line)
	for c := 1; c < n.Column && from < len(file); c++ {
		_, size := utf8.DecodeRune(file[from:])
		from += size
	}
	for to = from + 1; to <= len(file); to++ {
		var v yaml.Node
		if file[to-1] == '\n' || file[to-1] == '\r' {
			break
		}
		if yaml.Unmarshal(file[from:to], &v) == nil && v.Kind != 0 && v.Content[0].Kind == yaml.ScalarNode &&
			v.Content[0].Value == n.Value && v.Content[0].Style == n.Style && v.Content[0].Anchor == "" {
			return from, to, nil
		}
	}
	return 0, 0, hint.Add(fmt.Errorf("line %d: not a plain value on one line", n.Line), "write it as one, or set it by hand")
}
