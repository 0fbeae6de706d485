package main

import (
	"log/slog"

	"errors"
	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver"
	"github.com/locotoki/backout/remediation"
)

func (c *commands) addRules() {}

type kinds struct{ list []remediation.ActionKind }

func (k *kinds) Close() error { return nil }

func actionKinds(*receiver.Config, []string, *slog.Logger) (*kinds, error) {
	return &kinds{list: []remediation.ActionKind{wk{"flag_off", 1}, wk{"image_retag", 2}, wk{"schema_rollback", 3}, wk{"status_page", 1}}}, nil
}

type wk struct {
	n string
	r alerts.Risk
}

type wp struct {
	Flag string `yaml:"flag"`
}

func (w wk) Name() string                                            { return w.n }
func (w wk) Risk() alerts.Risk                                       { return w.r }
func (w wk) NewParams() any                                          { return &wp{} }
func (w wk) CheckParams(*alerts.Playbook, any) []alerts.ParamProblem { return nil }
func (w wk) Bind(*alerts.Playbook, any) (remediation.Action, error) {
	return nil, errors.New("not built")
}
func (w wk) Target(*alerts.Playbook, any) string { return "x:" + w.n }

func generated([]*alerts.Playbook) (any, error) { return nil, nil }
