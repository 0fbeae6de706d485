package main

import (
	"path/filepath"
	"slices"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/docker/projectfile"
)

// outsideProjects are the files that a step of a playbook would have to change and the
// configuration's docker.projects does not let backout read.
func outsideProjects(allowed projectfile.Folders, playbooks []*alerts.Playbook) (all []alerts.Problem) {
	for _, pb := range playbooks {
		if !changesService(pb) {
			continue
		}
		must := func(at, path, folder string) {
			if path == "" {
				return
			}
			if err := allowed.Names(path, folder); err != nil {
				message, try := hint.Of(err)
				all = append(all, pb.ProblemAt(at, message, try))
			}
		}
		must("target.compose.project_dir", pb.Target.Compose.ProjectDir, pb.Target.Compose.ProjectDir)
		if t := pb.Target.Swarm; t != nil {
			must("target.swarm.stack_file", t.StackFile, filepath.Dir(t.StackFile))
			must("target.swarm.env_file", t.EnvFile, filepath.Dir(t.EnvFile))
		}
	}
	return all
}

// changesService reports whether a step changes the service, and not only what others keep.
func changesService(pb *alerts.Playbook) bool {
	return slices.ContainsFunc(pb.Flags, func(f alerts.Flag) bool { return !f.Elsewhere() }) ||
		slices.ContainsFunc(pb.Plans, func(p alerts.Plan) bool {
			return slices.ContainsFunc(p.Steps, func(s alerts.Step) bool { return s.Action == "image_retag" })
		})
}
