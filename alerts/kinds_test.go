package alerts_test

import (
	"fmt"
	"strings"

	"github.com/locotoki/backout/alerts"
)

// kind is a kind of action for tests; params are of the type that params makes.
type kind struct {
	name   string
	risk   alerts.Risk
	params func() any
}

type noParams struct{}

type pageParams struct {
	Status  string `yaml:"status"`
	Message string `yaml:"message"`
}

type commandParams struct {
	DSNFile string   `yaml:"dsn_file"`
	Roles   []string `yaml:"application_roles"`
	Dir     string   `yaml:"dir"`
	Command []string `yaml:"command"`
	Wanted  string   `yaml:"wanted"`
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

func (k kind) NewParams() any { return k.params() }

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
		kind{"flag_off", alerts.Reversible, func() any { return &flagParams{} }},
		kind{"image_retag", alerts.Disruptive, func() any { return &noParams{} }},
		kind{"schema_rollback", alerts.Lossy, func() any { return &commandParams{} }},
		teller{kind{"status_page", alerts.Reversible, func() any { return &pageParams{} }}},
	}
}
