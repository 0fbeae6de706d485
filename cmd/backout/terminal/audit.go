package terminal

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// detailFirst are the most important keys of an entry's detail, in the order in
// which they are shown.
var detailFirst = []string{"reason", "why", "error", "trigger", "value", "threshold", "until"}

// detailLast are shown only with --output=json: long, or for programs only.
var detailLast = []string{"expr", "before", "after", "playbook", "playbooks", "alerts", "fingerprint", "fingerprints"}

// maxDetail is how much of a detail a terminal shows, in characters.
const maxDetail = 300

// detailText is the detail of an audit entry in one line.
func detailText(detail map[string]any) string {
	var parts []string
	say := func(key string) {
		if v, ok := detail[key]; ok {
			if text := detailValue(key, v); text != "" {
				parts = append(parts, strings.ReplaceAll(key, "_", " ")+" "+text)
			}
		}
	}
	for _, key := range detailFirst {
		say(key)
	}
	rest := []string{}
	for key := range detail {
		if !slices.Contains(detailFirst, key) && !slices.Contains(detailLast, key) {
			rest = append(rest, key)
		}
	}
	slices.Sort(rest)
	for _, key := range rest {
		say(key)
	}
	return strings.Join(parts, ", ")
}

func detailValue(key string, v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return remediation.Readable(v)
	case json.Number:
		if f, err := v.Float64(); err == nil {
			return shortNumber(f, v.String())
		}
		return v.String()
	case float64:
		return shortNumber(v, fmt.Sprint(v))
	case bool, int, int64:
		return fmt.Sprint(v)
	case []any:
		if key == "gates" {
			return gatesText(v)
		}
		if text, ok := wordsText(v); ok {
			return text
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// shortNumber is a number as people read it; a whole one stays as the log has it.
func shortNumber(f float64, whole string) string {
	switch {
	case f == math.Trunc(f):
		return whole
	case math.Abs(f) < 1e-7:
		return "0" // what is left of a sum of samples
	}
	return remediation.Measure(f, alerts.Count)
}

// wordsText joins a list of words or sentences.
func wordsText(list []any) (string, bool) {
	words, between := make([]string, len(list)), " "
	for i, v := range list {
		s, ok := v.(string)
		if !ok {
			return "", false
		}
		if words[i] = s; strings.Contains(s, " ") {
			between = "; "
		}
	}
	return strings.Join(words, between), true
}

// gatesText names the gates that were closed; all others were open.
func gatesText(gates []any) string {
	var closed []string
	for _, g := range gates {
		gate, ok := g.(map[string]any)
		if !ok {
			continue
		}
		if open, ok := gate["ok"].(bool); ok && !open {
			closed = append(closed, fmt.Sprintf("%v (%v)", gate["gate"], gate["why"]))
		}
	}
	if len(closed) == 0 {
		return "all open"
	}
	return "closed: " + strings.Join(closed, ", ")
}

// Entry is one entry: a line of who, when and what, and one of why.
func Entry(e audit.Entry, scr Screen) string {
	what := []string{string(e.Kind)}
	for _, s := range []string{e.Service, e.Incident, e.Step} {
		if s != "" {
			what = append(what, s)
		}
	}
	head := fmt.Sprintf("%6d  %s  %s, by %s", e.Seq, MomentShort(e.Time), scr.Cell(strings.Join(what, " "), 60), scr.Cell(e.Actor, 24))
	return scr.Cell(head, Columns) + "\n" + Wrap(strings.Repeat(" ", 8), scr.Cell(detailText(e.Detail), maxDetail))
}
