package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A playbook's project must be one that the configuration lets backout change.
func TestAProjectOutsideTheConfiguredFoldersIsAnError(t *testing.T) {
	dir := t.TempDir()
	for _, project := range []string{"shop", "shop2"} {
		if err := os.Mkdir(filepath.Join(dir, project), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	launchDarkly := replicaPlaybook
	own := strings.Replace(launchDarkly, ", launchdarkly: {project: shop, environment: production, key: feature-a}", "", 1)
	compose := "compose: {project_dir: /srv/shop, service: shop}"
	stack := "swarm: {service: shop_web, stack_file: /srv/shop/stack.yml, env_file: /srv/other/web.env}"
	inSwarm := strings.NewReplacer(compose, stack, "health: http://127.0.0.1:9000/health/", "health: /health, port: 8000").Replace(own)
	here := strings.ReplaceAll(own, "/srv/shop", dir+"/shop")
	for name, c := range map[string]struct {
		playbook, config string
		want             []string
	}{
		"another folder":         {here, "docker: {projects: [" + dir + "/shop2]}", []string{dir + "/shop is outside the allowed project folders", "docker: {projects: [" + dir + "/shop]}"}},
		"no folder":              {here, "{}", []string{dir + "/shop is outside the allowed project folders"}},
		"its folder":             {here, "docker: {projects: [" + dir + "/shop]}", nil},
		"a folder above":         {here, "docker: {projects: [" + dir + "]}", nil},
		"not on this machine":    {own, "docker: {projects: [/srv/shop]}", nil},
		"another, not here":      {own, "docker: {projects: [/srv/shop2]}", []string{"/srv/shop is outside the allowed project folders", "docker: {projects: [/srv/shop]}"}},
		"flags elsewhere":        {launchDarkly, "launchdarkly: {token_file: ld.token}", nil},
		"the files of a stack":   {inSwarm, "docker: {projects: [/srv/shop]}", []string{"/srv/other/web.env is outside the allowed project folders", "docker: {projects: [/srv/other]}"}},
		"the folders of a stack": {inSwarm, "docker: {projects: [/srv/shop, /srv/other]}", nil},
	} {
		t.Run(name, func(t *testing.T) {
			files := t.TempDir()
			conf, playbook := filepath.Join(files, "backout.yml"), filepath.Join(files, "playbook.yaml")
			secretFile(t, filepath.Join(files, "ld.token"), "api-0123456789")
			secretFile(t, conf, c.config+"\n")
			secretFile(t, playbook, c.playbook)
			r := backout(t, nil, "check", "--config.file="+conf, "--playbook.file="+playbook)
			if (r.status == 0) != (c.want == nil) {
				t.Fatalf("check: %+v", r)
			}
			if c.want != nil && !strings.Contains(r.stderr, playbook+":8: ") {
				t.Errorf("no line of the playbook: %s", r.stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("want %q in: %s", want, r.stderr)
				}
			}
		})
	}
}
