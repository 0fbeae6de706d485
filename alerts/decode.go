package alerts

import (
	"cmp"
	"encoding"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v3"
)

// maxValues bounds what a file may grow to by its anchors.
const maxValues = 20_000

// longest is the longest duration; sums of some of them do not overflow.
const longest = model.Duration(366 * 24 * time.Hour)

// oneValue is the hint for a list or a mapping in place of a single value.
const oneValue = "write one value, without brackets, braces and dashes"

// decoder fills Go values from YAML nodes, strictly: an unknown or unreadable value is
// a problem with a line. It continues after each.
type decoder struct {
	*report
	// what names the kind of file, such as "the playbook"; begin is how one begins.
	what, begin string
	kinds       []ActionKind
	// open holds the anchors whose content is being read.
	open   map[*yaml.Node]bool
	values int
}

// isEmpty ends the message about a key without a value.
const isEmpty = " is empty"

// value fills v, which is addressable, from n.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string) {
	if d.values++; d.values >= maxValues {
		return
	}
	if n.Kind == yaml.AliasNode {
		d.follow(n, func(to *yaml.Node) { d.value(to, v, path) })
		return
	}
	if n.ShortTag() == "!!null" {
		d.spoil(path, n.Line, path+isEmpty, "write a value, or leave the key out")
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path)
		return
	}
	if n.Style&yaml.TaggedStyle != 0 {
		d.spoil(path, n.Line, fmt.Sprintf("%s has the tag %s", path, n.Tag), "leave the tag out")
		return
	}
	if v.Type() == reflect.TypeFor[Step]() {
		d.step(n, v.Addr().Interface().(*Step), path)
		return
	}
	if d.text(n, v, path) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.wrong(n, path, "a list", "write it as [a, b], or each item on a line after a dash")
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, c := range n.Content {
			d.pos.lines[item(path, i)] = c.Line
			d.value(c, v.Index(i), item(path, i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for _, e := range d.entries(n, path) {
			one := reflect.New(v.Type().Elem()).Elem()
			d.value(e.value, one, e.path)
			v.SetMapIndex(reflect.ValueOf(e.name).Convert(v.Type().Key()), one)
		}
	default:
		d.scalar(n, v, path)
	}
}

// text fills values that have their own text format.
func (d *decoder) text(n *yaml.Node, v reflect.Value, path string) bool {
	switch v.Interface().(type) {
	case model.Duration, time.Duration:
		const try = "write it as Prometheus does: 30s, 5m, 1h30m, 7d"
		if n.Kind != yaml.ScalarNode {
			d.wrong(n, path, "a duration", try)
			return true
		}
		t, err := model.ParseDuration(n.Value)
		if err != nil {
			d.wrong(n, path, "a duration", try)
			return true
		}
		if t > longest {
			d.spoil(path, n.Line, fmt.Sprintf("%s (%s) is longer than a year", path, t), "write a shorter duration")
			return true
		}
		v.SetInt(int64(t))
		return true
	}
	u, ok := v.Addr().Interface().(encoding.TextUnmarshaler)
	if !ok {
		return false
	}
	if _, either := u.(interface{ orMapping() }); either && n.Kind == yaml.MappingNode {
		return false
	}
	if n.Kind != yaml.ScalarNode {
		d.wrong(n, path, "plain text", oneValue)
		return true
	}
	if err := u.UnmarshalText([]byte(n.Value)); err != nil {
		try := "write a value of that form"
		if _, ok := u.(*Rate); ok {
			try = "write count/window, such as 3/1h"
		}
		d.spoil(path, n.Line, fmt.Sprintf("%s: %v", path, err), try)
	}
	return true
}

// scalar fills text and numbers. A text needs no quotes even if YAML would read a
// number: it is taken as written.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.ScalarNode {
		d.wrong(n, path, kindName(v.Kind()), oneValue)
		return
	}
	switch tag := n.ShortTag(); v.Kind() {
	case reflect.String:
		v.SetString(n.Value)
		d.pos.blocks[path] = n.Style&yaml.LiteralStyle != 0
	case reflect.Float64:
		var f float64
		if tag != "!!float" && tag != "!!int" || n.Decode(&f) != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			d.wrong(n, path, "a number", "write a number such as 0.01, without quotes or a unit")
			return
		}
		v.SetFloat(f)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var i int64
		if tag != "!!int" || n.Decode(&i) != nil || v.OverflowInt(i) {
			d.wrong(n, path, "a whole number", "write a number such as 3")
			return
		}
		v.SetInt(i)
	case reflect.Bool:
		var b bool
		if tag != "!!bool" || n.Decode(&b) != nil {
			d.wrong(n, path, "true or false", "write true or false, without quotes")
			return
		}
		v.SetBool(b)
	default:
		d.spoil(path, n.Line, fmt.Sprintf("%s cannot be written here", path), "leave it out")
	}
}

func kindName(k reflect.Kind) string {
	switch k {
	case reflect.String:
		return "plain text"
	case reflect.Bool:
		return "true or false"
	}
	return "a number"
}

// wrong reports a value of the wrong type.
func (d *decoder) wrong(n *yaml.Node, path, want, try string) {
	got := fmt.Sprintf("%q", n.Value)
	switch n.Kind {
	case yaml.MappingNode:
		got = "a mapping"
	case yaml.SequenceNode:
		got = "a list"
	}
	d.spoil(path, n.Line, fmt.Sprintf("%s is %s, not %s", path, got, want), try)
}

// structure fills a struct by its yaml tags.
func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.MappingNode {
		d.wrong(n, d.orWhole(path), "a mapping", "write it as key: value")
		d.bad[path] = true
		return
	}
	d.fill(d.entries(n, path), v, path)
}

// fill sets a struct's fields from the entries of a mapping.
func (d *decoder) fill(es []entry, v reflect.Value, path string) {
	fields := fieldsOf(v.Type())
	for _, e := range es {
		index, ok := fields[e.name]
		if !ok {
			d.unknown(e, path, slices.Sorted(maps.Keys(fields)))
			continue
		}
		d.value(e.value, v.FieldByIndex(index), e.path)
	}
}

// unknown reports a key that is not one of known.
func (d *decoder) unknown(e entry, path string, known []string) {
	try := "known keys here: " + strings.Join(known, ", ")
	missing := slices.DeleteFunc(slices.Clone(known), func(k string) bool { return d.pos.has(key(path, k)) })
	if s := Nearest(e.name, missing); s != "" {
		try = fmt.Sprintf("did you mean %s?", s)
		// Its value was meant to be there: do not report it as missing too.
		d.bad[key(path, s)] = true
	}
	if len(known) == 0 {
		try = "leave it out"
	}
	d.spoil(e.path, e.line, fmt.Sprintf("unknown key %q in %s", e.name, d.orWhole(path)), try)
}

// orWhole names the value at a path, or the whole file.
func (d *decoder) orWhole(path string) string { return cmp.Or(path, d.what) }

// fieldsOf returns a struct's fields by their yaml key.
func fieldsOf(t reflect.Type) map[string][]int {
	fields := map[string][]int{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case opts == "inline" && f.Type.Kind() == reflect.Struct:
			for k, index := range fieldsOf(f.Type) {
				fields[k] = append([]int{i}, index...)
			}
		case !f.IsExported() || name == "-":
		case name == "":
			fields[strings.ToLower(f.Name)] = []int{i}
		default:
			fields[name] = []int{i}
		}
	}
	return fields
}

// follow calls fn with the node of an alias, unless the anchor contains itself.
func (d *decoder) follow(n *yaml.Node, fn func(*yaml.Node)) {
	if d.open[n.Alias] {
		d.list = append(d.list, Problem{File: d.pos.file, Line: n.Line, Message: fmt.Sprintf("the anchor %q contains itself", n.Value), Try: "write the value out"})
		return
	}
	d.open[n.Alias] = true
	defer delete(d.open, n.Alias)
	fn(n.Alias)
}

// entry is one key of a mapping.
type entry struct {
	name  string
	path  string
	line  int
	value *yaml.Node
}

// entries returns a mapping's keys and values in their order, those of merge
// keys last, and records the place of each.
func (d *decoder) entries(n *yaml.Node, path string) []entry {
	if n.Kind != yaml.MappingNode {
		d.wrong(n, d.orWhole(path), "a mapping", "write it as key: value")
		return nil
	}
	var es []entry
	first := map[string]int{}
	d.own(n, path, &es, first)
	for _, e := range es {
		d.pos.lines[e.path] = e.line
	}
	return es
}

// own adds the entries of one mapping that are not in first yet, then those of
// the mappings that it merges.
func (d *decoder) own(n *yaml.Node, path string, es *[]entry, first map[string]int) {
	if d.values++; d.values >= maxValues {
		return
	}
	var merged []*yaml.Node
	here := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge":
			merged = append(merged, v)
			continue
		case k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str":
			d.spoil(path, k.Line, fmt.Sprintf("a key in %s is not plain text", d.orWhole(path)), "put it in quotes if it is meant")
			continue
		}
		if line, ok := here[k.Value]; ok {
			d.spoil(key(path, k.Value), k.Line, fmt.Sprintf("the key %q is given twice, first on line %d", k.Value, line), "keep one of them")
			continue
		}
		here[k.Value] = k.Line
		if _, ok := first[k.Value]; !ok {
			first[k.Value] = k.Line
			*es = append(*es, entry{name: k.Value, path: key(path, k.Value), line: k.Line, value: v})
		}
	}
	for _, m := range merged {
		d.merge(m, path, es, first)
	}
}

func (d *decoder) merge(n *yaml.Node, path string, es *[]entry, first map[string]int) {
	switch n.Kind {
	case yaml.AliasNode:
		d.follow(n, func(to *yaml.Node) { d.merge(to, path, es, first) })
	case yaml.MappingNode:
		d.own(n, path, es, first)
	case yaml.SequenceNode:
		for _, c := range n.Content {
			d.merge(c, path, es, first)
		}
	default:
		d.spoil(path, n.Line, "a merge key does not name a mapping", "write <<: *anchor, with an anchor on a mapping")
	}
}
