package page

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// evidenceFirst are the keys of an entry's detail that say most, in the order in
// which they are shown; all others follow by name.
var evidenceFirst = []string{"reason", "why", "error", "trigger", "value", "threshold", "verdict", "outcome", "until", "expr", "gates"}

// shownGates bounds what a list of gates shows.
const shownGates = 50

// evidenceOf is an entry's detail, line by line.
func evidenceOf(detail map[string]any) []evidenceLine {
	keys := make([]string, 0, len(detail))
	for k := range detail {
		keys = append(keys, k)
	}
	rank := func(k string) int {
		if i := slices.Index(evidenceFirst, k); i >= 0 {
			return i
		}
		return len(evidenceFirst)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return bytes.Compare([]byte(a), []byte(b))
	})
	out := make([]evidenceLine, 0, len(keys))
	for _, k := range keys {
		out = append(out, newEvidence(k, detail[k]))
	}
	return out
}

// shownEvidence bounds a value, in characters.
const shownEvidence = 8 << 10

func newEvidence(key string, v any) evidenceLine {
	line := evidenceLine{Key: key}
	switch v := v.(type) {
	case nil:
		line.Value = "none"
	case string:
		line.Value = remediation.Readable(v)
	case bool, json.Number, int, int64:
		line.Value = fmt.Sprint(v)
	case []any:
		if gates, ok := gatesOf(v); key == "gates" && ok {
			line.Gates = gates
			return line
		}
		line.Value, line.Long = indented(v)
	default:
		line.Value, line.Long = indented(v)
	}
	line.Value = remediation.Plain(line.Value, shownEvidence)
	return line
}

func indented(v any) (text string, long bool) {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v), false
	}
	if len(b) < 80 {
		return string(b), false
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return string(b), false
	}
	return out.String(), true
}

func gatesOf(all []any) ([]gateLine, bool) {
	var out []gateLine
	for _, g := range all[:min(len(all), shownGates)] {
		m, ok := g.(map[string]any)
		if !ok {
			return nil, false
		}
		open, _ := m["ok"].(bool)
		why, _ := m["why"].(string)
		out = append(out, gateLine{Gate: fmt.Sprint(m["gate"]), Why: why, Open: open})
	}
	return out, true
}

// Event is a moment of the incident's timeline, with its evidence.
type Event struct {
	view.TimelineEvent
	Evidence []evidenceLine
}

// NewEvent is an entry as the timeline shows it.
func NewEvent(e audit.Entry) Event {
	return Event{view.Describe(e), evidenceOf(e.Detail)}
}

// evidenceLine is one key of an entry's detail.
type evidenceLine struct {
	// Value is plain text.
	Key, Value string
	// Gates, where the key is that, and Long, where the value is JSON.
	Gates []gateLine
	Long  bool
}

type gateLine struct {
	Gate, Why string
	Open      bool
}
