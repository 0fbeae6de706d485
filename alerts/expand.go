package alerts

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// The variables that every query knows; the other ones are selectors.
const (
	windowVariable    = "window"
	minVolumeVariable = "min_volume"
)

var variable = regexp.MustCompile(`\$([A-Za-z_][A-Za-z0-9_]*)`)

// Expand replaces a query's variables: $window, $min_volume and the playbook's
// selectors. Anything else stays unchanged.
func (p *Playbook) Expand(query string, window time.Duration, minVolume float64) string {
	return variable.ReplaceAllStringFunc(query, func(v string) string {
		switch name := v[1:]; name {
		case windowVariable:
			return model.Duration(window).String()
		case minVolumeVariable:
			return strconv.FormatFloat(minVolume, 'f', -1, 64)
		default:
			if s, ok := p.Selectors[name]; ok {
				return s
			}
			return v
		}
	})
}

// UpMatchers are the label matchers of Up, without braces.
func (p *Playbook) UpMatchers() string {
	s := strings.TrimSpace(p.Expand(p.Up, 0, 0))
	if in, ok := strings.CutPrefix(s, "{"); ok {
		s = strings.TrimSuffix(in, "}")
	}
	return strings.Trim(strings.TrimSpace(s), ",")
}

// withoutComments blanks PromQL's comments, since a query becomes part of longer
// expressions. Lines and columns stay as they are.
func withoutComments(query string) string {
	out := []byte(query)
	var quote byte
	for i := 0; i < len(out); i++ {
		switch c := out[i]; {
		case quote != 0:
			if c == '\\' && quote != '`' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'' || c == '`':
			quote = c
		case c == '#':
			for ; i < len(out) && out[i] != '\n'; i++ {
				out[i] = ' '
			}
		}
	}
	return string(out)
}

// uses reports whether a query holds $name.
func uses(query, name string) bool {
	for _, m := range variable.FindAllStringSubmatch(query, -1) {
		if m[1] == name {
			return true
		}
	}
	return false
}
