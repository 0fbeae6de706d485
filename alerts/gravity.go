package alerts

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Gravity is what a playbook says of how grave an incident is: all that whoever has
// no kinds of action can read of it.
type Gravity struct {
	Call     *IncidentCall
	severity map[string]int
}

// ReadGravity reads it from the source of a playbook that was loaded once.
func ReadGravity(source []byte) (Gravity, error) {
	var pb struct {
		Triggers []struct {
			Name     string `yaml:"name"`
			Severity int    `yaml:"severity"`
		} `yaml:"triggers"`
		Communications struct {
			IncidentCall *IncidentCall `yaml:"incident_call"`
		} `yaml:"communications"`
	}
	if err := yaml.Unmarshal(source, &pb); err != nil {
		return Gravity{}, fmt.Errorf("read severities: %w", err)
	}
	g := Gravity{Call: pb.Communications.IncidentCall, severity: map[string]int{}}
	for _, t := range pb.Triggers {
		g.severity[t.Name] = t.Severity
	}
	return g, nil
}

// Severity is the gravest of some triggers', DefaultSeverity where none has one.
func (g Gravity) Severity(triggers []string) int {
	most := 0
	for _, t := range triggers {
		s := g.severity[t]
		if _, known := g.severity[t]; known && s == 0 {
			s = DefaultSeverity
		}
		most = max(most, s)
	}
	if most == 0 {
		most = DefaultSeverity
	}
	return most
}
