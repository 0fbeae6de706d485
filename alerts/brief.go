package alerts

import (
	"fmt"
	"strings"
	"text/template"
)

// Brief is what a support brief's template renders: what customers may be told, in
// the words that the public is told in. A template of the playbook's own names its
// fields: {{.Title}}, {{range .Fallbacks}}{{.Feature}}{{end}}.
type Brief struct {
	Service, Incident string
	// Owner and Points are the playbook's.
	Owner  string
	Points []string
	// Told: the public was told. Title, Since, Status and Words are what, Components
	// how the parts of the service are; all are empty where it was not.
	Told                 bool
	Title, Since, Status string
	Words                string
	Components           []BriefComponent
	// Fallbacks are the features that are switched off, and what takes their place.
	Fallbacks []BriefFallback
	// Next says when more will be known, Page where the status page is, "" where
	// that is not known.
	Next, Page string
}

// BriefComponent is one component of the status page.
type BriefComponent struct{ Name, Status string }

// BriefFallback is a feature that is off, the flag that did it and what customers get
// instead.
type BriefFallback struct{ Feature, Flag, Instead string }

// builtinBrief renders a brief where the playbook has no template.
const builtinBrief = `Support brief{{with .Owner}} for {{.}}{{end}}: {{.Service}}, {{.Incident}}

What customers see
{{if .Told}}{{.Title}}, since {{.Since}}.
{{range .Components}}- {{.Name}}: {{.Status}}
{{end}}{{else}}The public was told nothing yet: say only that it is being looked into.
{{end}}
Which features fall back to what
{{range .Fallbacks}}- {{.Feature}}: {{.Instead}}
{{else}}None is switched off.
{{end}}
What is being done
{{if .Told}}{{.Words}} ({{.Status}})
{{else}}It is being looked into.
{{end}}
When the next update comes
{{.Next}}

Where the status page is
{{with .Page}}{{.}}{{else}}Its address is not in the playbook (communications.status_page.url).{{end}}
{{with .Points}}
What to cover
{{range .}}- {{.}}
{{end}}{{end}}`

// Render writes the brief by the playbook's template, or by the built-in one.
func (s *SupportBrief) Render(b Brief) (string, error) {
	text := builtinBrief
	if s != nil && s.Template != "" {
		text = s.Template
	}
	t, err := template.New("template").Option("missingkey=error").Parse(text)
	if err != nil {
		return "", fmt.Errorf("support brief: %w", err)
	}
	out := &bounded{left: longestBrief}
	if err := t.Execute(out, b); err != nil {
		return "", fmt.Errorf("support brief: %w", err)
	}
	return strings.TrimSpace(out.String()) + "\n", nil
}

// longestBrief bounds a brief, in bytes.
const longestBrief = 64 << 10

// bounded keeps a template that never ends from taking all memory.
type bounded struct {
	strings.Builder
	left int
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, fmt.Errorf("the brief is longer than %d bytes", longestBrief)
	}
	return b.Builder.Write(p)
}

// supportBrief judges what customer support is told: a template of its own must
// render whatever is known, much or little.
func (v *validator) supportBrief(b *SupportBrief, path string) {
	v.need(key(path, "points"), len(b.Points) == 0, "write what customer support shall say")
	at := key(path, "template")
	if !v.pos.has(at) {
		return
	}
	if strings.TrimSpace(b.Template) == "" {
		v.at(at, at+" is empty", "write a text/template, or leave it out for the built-in one")
		return
	}
	full := Brief{
		Service: v.pb.Service, Incident: "inc-1", Owner: b.Owner, Points: b.Points, Told: true, Title: "Problems with Analytics",
		Since: "22 November 2026, 03:00 UTC", Status: "identified", Words: "We are working on it.",
		Components: []BriefComponent{{"Analytics", "partial outage"}},
		Fallbacks:  []BriefFallback{{"Analytics", "FEATURE_ANALYTICS_ENABLED", "Return basic metrics only"}},
		Next:       "As soon as something changes.", Page: "https://status.example.com",
	}
	little := Brief{Service: full.Service, Incident: full.Incident, Owner: b.Owner, Points: b.Points, Next: full.Next}
	for _, sample := range []Brief{full, little} {
		if _, err := b.Render(sample); err != nil {
			v.at(at, fmt.Sprintf("%s does not render: %v", at, err),
				"a Go text/template of Service, Incident, Owner, Points, Told, Title, Since, Status, Words, Components (Name, Status), Fallbacks (Feature, Flag, Instead), Next and Page; "+
					"where nothing was told, Told is false and the lists are empty")
			return
		}
	}
}
