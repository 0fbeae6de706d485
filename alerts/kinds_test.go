package alerts_test

import (
	"fmt"
	"strings"

	"github.com/locotoki/backout/alerts"
)

// kind is a kind of action for tests: without parameters or, where flagged, with
// those of flagParams.
type kind struct {
	name    string
	risk    alerts.Risk
	flagged bool
}

type flagParams struct {
	Flag  string `yaml:"flag"`
	Times int    `yaml:"times"`
	Loud  bool   `yaml:"loud"`
	// Odd is of a type that no playbook can hold.
	Odd chan int `yaml:"odd"`
}

func (k kind) Name() string      { return k.name }
func (k kind) Risk() alerts.Risk { return k.risk }

func (k kind) NewParams() any {
	if k.flagged {
		return &flagParams{}
	}
	return &struct{}{}
}

func (k kind) CheckParams(pb *alerts.Playbook, params any) []alerts.ParamProblem {
	p, ok := params.(*flagParams)
	if !ok {
		return nil
	}
	if p.Flag == "" {
		return []alerts.ParamProblem{{Key: "flag", Problem: "no flag is named", Try: "write flag: and one of flags"}}
	}
	if pb.Flag(p.Flag) == nil {
		var names []string
		for _, f := range pb.Flags {
			names = append(names, f.Name)
		}
		return []alerts.ParamProblem{{Key: "flag", Problem: fmt.Sprintf("there is no flag %q", p.Flag), Try: "write one of " + strings.Join(names, ", ")}}
	}
	return nil
}

// teller is a kind that tells people something.
type teller struct{ kind }

func (teller) Communicates() {}

func kinds() []alerts.ActionKind {
	return []alerts.ActionKind{
		kind{name: "flag_off", risk: alerts.Reversible, flagged: true},
		kind{name: "image_retag", risk: alerts.Disruptive},
		kind{name: "schema_rollback", risk: alerts.Lossy},
		teller{kind{name: "status_page", risk: alerts.Reversible}},
	}
}
