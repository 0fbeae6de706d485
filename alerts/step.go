package alerts

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// step decodes a step: the common keys here, the rest into its action's own
// parameters.
func (d *decoder) step(n *yaml.Node, s *Step, path string) {
	if n.Kind != yaml.MappingNode {
		d.wrong(n, path, "a mapping", "write it as {action: flag_off, flag: NAME}")
		return
	}
	common := fieldsOf(reflect.TypeFor[Step]())
	var known, rest []entry
	for _, e := range d.entries(n, path) {
		if _, ok := common[e.name]; ok {
			known = append(known, e)
		} else {
			rest = append(rest, e)
		}
	}
	d.fill(known, reflect.ValueOf(s).Elem(), path)

	if s.Action == "" {
		d.noAction(rest, n, path)
		return
	}
	i := slices.IndexFunc(d.kinds, func(kind ActionKind) bool { return kind.Name() == s.Action })
	if i < 0 {
		d.spoil(key(path, "action"), d.pos.line(key(path, "action")), fmt.Sprintf("unknown action %q", s.Action), OneOf(s.Action, d.actions()))
		return
	}
	kind := d.kinds[i]
	s.Risk = kind.Risk()
	_, s.communicates = kind.(interface{ Communicates() })
	s.Params = kind.NewParams()
	d.params(rest, reflect.ValueOf(s.Params), slices.Sorted(maps.Keys(common)), path)
}

// noAction reports a step without an action, unless the key was misspelt.
func (d *decoder) noAction(rest []entry, n *yaml.Node, path string) {
	for _, e := range rest {
		if Nearest(e.name, []string{"action"}) != "" {
			d.unknown(e, path, []string{"action"})
			return
		}
	}
	d.at(key(path, "action"), fmt.Sprintf("%s has no action", path), "write action: and one of "+strings.Join(d.actions(), ", "))
}

// params decodes the keys that are the action's own.
func (d *decoder) params(rest []entry, v reflect.Value, common []string, path string) {
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		for _, e := range rest {
			d.unknown(e, path, common)
		}
		return
	}
	fields := fieldsOf(v.Elem().Type())
	var own []entry
	for _, e := range rest {
		if _, ok := fields[e.name]; ok {
			own = append(own, e)
			continue
		}
		d.unknown(e, path, slices.Sorted(slices.Values(slices.Concat(common, slices.Collect(maps.Keys(fields))))))
	}
	d.fill(own, v.Elem(), path)
}

func (d *decoder) actions() []string {
	names := make([]string, len(d.kinds))
	for i, k := range d.kinds {
		names[i] = k.Name()
	}
	slices.Sort(names)
	return names
}

// OneOf is the hint for a name that is not one of names: the one that was likely meant,
// and all of them if they are few.
func OneOf(word string, names []string) string {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "" })
	if len(names) == 0 {
		return "none is defined: define it, or leave this out"
	}
	const few = 12
	if s := Nearest(word, names); s != "" && len(names) > few {
		return "did you mean " + s + "?"
	} else if s != "" {
		return fmt.Sprintf("did you mean %s? known: %s", s, strings.Join(names, ", "))
	}
	return "write one of " + strings.Join(names, ", ")
}
