package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// deployed is a compose project on the real engine, whose service runs v1.0.0 of
// the image that remediation/docker is tested with.
type deployed struct {
	dir, project, config, playbook string
}

func deploy(t *testing.T) *deployed {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	d := &deployed{dir: dir, project: fmt.Sprintf("backoutverify%d", os.Getpid()), config: filepath.Join(dir, "backout.yml"), playbook: filepath.Join(dir, "playbook.yaml")}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	smallest, err := os.ReadFile("../../testdata/playbooks/good/smoke-checks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(smallest), "target:\n")
	after := strings.Index(string(smallest), "flags:\n")
	write(d.playbook, string(smallest[:at])+fmt.Sprintf(`target:
  compose: {project_dir: %s, service: web}
  probe:
    health: http://%[2]s/health/
    version: http://%[2]s/version
    timeout: 20s
    smoke:
      - {name: flags are served, url: "http://%[2]s/flags", contains: "{"}
      - {name: strangers find nothing, url: "http://%[2]s/private", status: 404}
`, dir, address)+string(smallest[after:]))
	write(d.config, fmt.Sprintf("docker: {host: %s, projects: [%s]}\n", os.Getenv("DOCKER_HOST"), dir))
	write(filepath.Join(dir, "Dockerfile"), "FROM scratch\nCOPY service /service\nENV VERSION=v1.0.0\nENTRYPOINT [\"/service\"]\n")
	write(filepath.Join(dir, "docker-compose.yml"), fmt.Sprintf("version: \"3.8\"\nservices:\n  web:\n    image: %s:latest\n    ports: [\"%s:9000\"]\n", d.project, address))
	d.run(t, "", "env", "CGO_ENABLED=0", "go", "build", "-o", filepath.Join(dir, "service"), "../../remediation/docker/testdata/service")
	t.Cleanup(func() {
		d.run(t, dir, "docker-compose2", "-p", d.project, "down")
		d.run(t, dir, "docker", "rmi", "--force", d.project+":v1.0.0", d.project+":latest")
	})
	d.run(t, dir, "docker", "build", "--quiet", "--tag", d.project+":v1.0.0", "--tag", d.project+":latest", ".")
	d.run(t, dir, "docker-compose2", "-p", d.project, "up", "-d")
	return d
}

func (d *deployed) run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v (try: make test, which brings an engine and the tools)\n%s", name, args, err, out)
	}
}

func (d *deployed) verify(t *testing.T, args ...string) result {
	t.Helper()
	return backout(t, nil, append([]string{"verify", "--config.file=" + d.config, "--playbook.file=" + d.playbook}, args...)...)
}

func TestVerifyAnswersWhetherAServiceRunsAVersionAndWorks(t *testing.T) {
	d := deploy(t)
	r := d.verify(t, "--version=v1.0.0")
	if r.status != 0 || r.stderr != "" || !strings.Contains(r.stdout, "social-intel runs v1.0.0 and works: 5 checks.") {
		t.Fatalf("%+v", r)
	}
	for _, check := range []string{"image: ", "version: ", "health: ", "smoke: flags are served: ", "smoke: strangers find nothing: "} {
		if !strings.Contains(r.stdout, "ok      "+check) {
			t.Errorf("no line of %q in\n%s", check, r.stdout)
		}
	}

	// Another image under the tag, of another version.
	if err := os.WriteFile(filepath.Join(d.dir, "Dockerfile"), []byte("FROM "+d.project+":v1.0.0\nENV VERSION=v2.0.0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.run(t, d.dir, "docker", "build", "--quiet", "--tag", d.project+":latest", ".")
	d.run(t, d.dir, "docker-compose2", "-p", d.project, "up", "-d")
	patient, err := os.ReadFile(d.playbook)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.playbook, []byte(strings.Replace(string(patient), "timeout: 20s", "timeout: 2s", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	r = d.verify(t, "--version=v1.0.0", "--output=json")
	var v verification
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || r.status != 1 || r.stderr != "" {
		t.Fatalf("%v, %+v", err, r)
	}
	var failed []string
	for _, check := range v.Checks {
		if !check.OK {
			failed = append(failed, check.Name)
		}
	}
	if v.OK || v.Service != "social-intel" || v.Version != "v1.0.0" || strings.Join(failed, ",") != "image,version" {
		t.Errorf("failed %v: %+v", failed, v)
	}
	r = d.verify(t, "--version=v1.0.0")
	if r.status != 1 || !strings.Contains(r.stdout, "failed  image: ") || !strings.Contains(r.stdout, "not verified as v1.0.0: 2 of 5 checks failed") {
		t.Errorf("%+v", r)
	}

	// Nothing runs: said at once, however patient the playbook is.
	if err := os.WriteFile(d.playbook, []byte(strings.Replace(string(patient), "timeout: 20s", "timeout: 5m", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	d.run(t, d.dir, "docker-compose2", "-p", d.project, "stop")
	r = d.verify(t, "--version=v2.0.0")
	if r.status != 1 || !strings.Contains(r.stdout, "there is no image "+d.project+":v2.0.0") || !strings.Contains(r.stdout, "no container of web is running") || time.Since(began) > time.Minute {
		t.Errorf("after %s: %+v", time.Since(began), r)
	}
}
