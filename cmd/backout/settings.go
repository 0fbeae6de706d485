package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
)

// settingsFlags name a server's configuration files.
type settingsFlags struct {
	configFile *string
	playbookFlags
}

// playbookFlags name the playbooks.
type playbookFlags struct {
	playbookFiles *[]string
	// example is told that the built-in playbook is used.
	example func(service string)
}

func (c *commands) settingsFlags(clause *kingpin.CmdClause) settingsFlags {
	return settingsFlags{
		configFile:    clause.Flag("config.file", "Configuration: addresses of Prometheus and others, tokens, storage. Every key is optional.").PlaceHolder("FILE").String(),
		playbookFlags: c.playbookFlags(clause),
	}
}

func (c *commands) playbookFlags(clause *kingpin.CmdClause) playbookFlags {
	return playbookFlags{
		playbookFiles: clause.Flag("playbook.file", "Playbook of one service; repeatable. Default: the built-in example.").PlaceHolder("FILE").Strings(),
		example: func(service string) {
			_, _ = fmt.Fprintf(c.stderr, "backout: no --playbook.file: this is the built-in example, the playbook of %s\n", service)
		},
	}
}

// settings are the content of those files, validated.
type settings struct {
	config    *config.Config
	playbooks []*alerts.Playbook
}

// load reads all of them; its error has the mistakes of all files.
func (f settingsFlags) load(kinds []alerts.ActionKind) (settings, error) {
	conf, err := f.loadConfig()
	playbooks, _, perr := f.loadPlaybooks(kinds)
	if err := errors.Join(err, perr); err != nil {
		return settings{}, wrong("", "%w", err)
	}
	return settings{conf, playbooks}, nil
}

// loadConfig reads the configuration, or returns the default one where no file
// is given; if the file is wrong, it returns the default one with the error.
func (f settingsFlags) loadConfig() (*config.Config, error) {
	if *f.configFile == "" {
		return config.Default(), nil
	}
	conf, err := config.Load(*f.configFile)
	if err != nil {
		return config.Default(), err
	}
	return conf, nil
}

// loadPlaybooks reads playbooks, or the built-in example if no file is given.
// Its error has the problems of all of them; with it are returned those that are good,
// and others whose rules can be checked.
func (f playbookFlags) loadPlaybooks(kinds []alerts.ActionKind) (good, others []*alerts.Playbook, err error) {
	if len(*f.playbookFiles) == 0 {
		pb, err := alerts.Default(kinds)
		if err != nil {
			return nil, nil, fmt.Errorf("built-in playbook: %w", err)
		}
		f.example(pb.Service)
		return []*alerts.Playbook{pb}, nil, nil
	}
	var errs []error
	for _, file := range *f.playbookFiles {
		pb, err := alerts.LoadPartly(file, kinds)
		switch {
		case err == nil:
			good = append(good, pb)
		case pb != nil:
			others = append(others, pb)
		}
		errs = append(errs, err)
	}
	return good, others, errors.Join(append(errs, alerts.CheckConflicts(good))...)
}

// playbookKinds are the kinds as the playbooks' loader takes them.
func playbookKinds(kinds []remediation.ActionKind) []alerts.ActionKind {
	out := make([]alerts.ActionKind, len(kinds))
	for i, k := range kinds {
		out[i] = k
	}
	return out
}

// describe names the playbooks for a log line.
func (s settings) describe() string {
	var names []string
	for _, pb := range s.playbooks {
		names = append(names, pb.Service+"@"+pb.Release.Version)
	}
	return strings.Join(names, " ")
}
