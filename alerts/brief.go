package alerts

import (
	"fmt"
	"strings"
	"text/template"
)

// Brief is the data of a support brief's template: what customers may be told, in the
// status page's words. A template in the playbook uses its
// fields: {{.Title}}, {{range .Fallbacks}}{{.Feature}}{{end}}.
type Brief struct {
	Service, Incident string
	// Owner and Points are the playbook's.
	Owner  string
	Points []string
	// Told is true once the status page shows the incident. Title, Since, Status, Words
	// and Components are what it shows; all are empty before.
	Told                 bool
	Title, Since, Status string
	Words                string
	Components           []BriefComponent
	// Fallbacks are the features that are turned off, and what replaces them.
	Fallbacks []BriefFallback
	// Next says when the next update comes, Page is the status page's address, "" if
	// unknown.
	Next, Page string
}

// BriefComponent is one component of the status page.
type BriefComponent struct{ Name, Status string }

// BriefFallback is a feature that is off, the flag that did it and what customers get
// instead.
type BriefFallback struct{ Feature, Flag, Instead string }

// builtinBrief renders a brief if the playbook has no template.
const builtinBrief = `Support brief{{with .Owner}} for {{.}}{{end}}: {{.Service}}, {{.Incident}}

What customers see
{{if .Told}}{{.Title}}, since {{.Since}}.
{{range .Components}}- {{.Name}}: {{.Status}}
{{end}}{{else}}The public page says nothing yet: say only that we are looking into it.
{{end}}
Which features fall back to what
{{range .Fallbacks}}- {{.Feature}}: {{.Instead}}
{{else}}None is turned off.
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

// Render writes the brief with the playbook's template, or with the built-in one.
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

// bounded stops a template that never ends before it takes all memory.
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

// supportBrief checks the support brief: its template must render with full and with
// empty data.
func (v *validator) supportBrief(b *SupportBrief, path string) {
	v.need(key(path, "points"), len(b.Points) == 0, "write what customer support should say")
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
