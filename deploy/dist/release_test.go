//go:build dist

package dist

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// built is where `make dist` puts the release.
const built = "../../dist"

// artifact returns the path of the one file of the release whose name ends so.
func artifact(t *testing.T, suffix string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(built, "backout_*"+suffix))
	if err != nil || len(found) != 1 {
		t.Fatalf("%d files *%s in dist/, not one (%v): try: make dist", len(found), suffix, err)
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// output runs a command of the machine and returns what it printed.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// until polls for a condition for a minute.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute: not %s", what)
		}
	}
}

// A copy of the tracked files in another folder gives the same bytes. It shares the compiler's cache, the compose tool and the Debian
// packages with the first build.
func TestBuildingAgainElsewhereGivesTheSameBytes(t *testing.T) {
	t.Parallel()
	if os.Getenv("REVISION") == "" {
		t.Fatal("the commit is not in the environment: try: make dist-check")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	again := t.TempDir()
	for file := range strings.SplitSeq(strings.TrimRight(output(t, "git", "-C", root, "ls-files", "-z"), "\x00"), "\x00") {
		target := filepath.Join(again, file)
		info, err := os.Stat(filepath.Join(root, file))
		if os.IsNotExist(err) {
			continue // removed, and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, content, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(root, ".cache"), filepath.Join(again, ".cache")); err != nil {
		t.Fatal(err)
	}
	output(t, filepath.Join(again, "deploy/dist/build.sh"), filepath.Join(again, "out"))
	first, second := sums(t, built), sums(t, filepath.Join(again, "out"))
	if len(first) != 11 {
		t.Errorf("%d files in dist/, not 11: 5 for each architecture, and the sums", len(first))
	}
	for name, sum := range first {
		if second[name] != sum {
			t.Errorf("%s differs: %s, then %q", name, sum, second[name])
		}
	}
	output(t, "sh", "-c", "cd "+built+" && sha256sum --check --strict --quiet SHA256SUMS")
}

func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = fmt.Sprintf("%x", sha256.Sum256(content))
	}
	return all
}

func TestProgramsAreStaticAndNameNoPathOfTheMachine(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		path := artifact(t, "_linux_"+arch)
		f, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if f.Machine != machine {
			t.Errorf("%s: machine %s", arch, f.Machine)
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				t.Errorf("%s needs a loader", arch)
			}
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte(root)) {
			t.Errorf("%s names %s", arch, root)
		}
		var bom struct {
			BomFormat  string
			Components []struct{ Purl string }
		}
		raw, err := os.ReadFile(artifact(t, "_linux_"+arch+".cdx.json"))
		if err == nil {
			err = json.Unmarshal(raw, &bom)
		}
		if err != nil || bom.BomFormat != "CycloneDX" || !bytes.Contains(raw, []byte("pkg:golang/modernc.org/sqlite@")) {
			t.Errorf("%s: the SBOM does not name SQLite (%v)", arch, err)
		}
	}
}

// machine is a Debian with systemd, in namespaces of its own: network, processes, mounts.
type machine struct {
	t    *testing.T
	root string
	pid  int // of its systemd, here
}

// newRoot is a fresh copy of the Debian that debian.sh installed.
func newRoot(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("./debian.sh", "chroot")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	output(t, "cp", "-a", strings.TrimSpace(string(out)), root)
	return root
}

func boot(t *testing.T, root string) *machine {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--fork", "--kill-child", "./boot.sh", root)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, root: root}
	t.Cleanup(func() {
		if t.Failed() {
			journal, _ := m.try("journalctl", "--no-pager", "--lines=50")
			t.Logf("the journal:\n%s", journal)
		}
		cancel() // unshare ends its child, the first process, and so all of them
		_ = cmd.Wait()
	})
	until(t, "a first process", func() bool {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if err == nil {
			m.pid, err = strconv.Atoi(strings.TrimSpace(string(children)))
		}
		return err == nil
	})
	until(t, "a systemd that answers", func() bool { _, err := m.try("systemctl", "show", "--property=Version"); return err == nil })
	return m
}

func (m *machine) try(args ...string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.pid), "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--root", "--wd",
		"env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (m *machine) run(args ...string) string {
	m.t.Helper()
	out, err := m.try(args...)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (m *machine) put(source, target string) {
	m.t.Helper()
	output(m.t, "cp", source, filepath.Join(m.root, target))
}

// The package is installed on a Debian whose systemd starts the unit with all of its hardening. A notification of
// Alertmanager becomes an incident there. Upgrade, removal and purge leave what belongs to the operator.
func TestPackageInstallsStartsAndTakesANotification(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	m := &machine{t: t, root: root}
	m.put(artifact(t, "_"+hostArch(t)+".deb"), "root/backout.deb")
	m.put(artifact(t, "_"+hostArch(t)+".rpm"), "root/backout.rpm")
	m = boot(t, root)

	m.run("dpkg", "--install", "/root/backout.deb")
	if got := m.run("stat", "-c", "%n %U:%G %a", "/etc/backout", "/etc/backout/backout.yml", "/etc/backout/playbook.yaml", "/usr/bin/backout"); got !=
		"/etc/backout root:backout 750\n/etc/backout/backout.yml root:backout 640\n/etc/backout/playbook.yaml root:backout 640\n/usr/bin/backout root:root 755\n" {
		t.Errorf("installed:\n%s", got)
	}
	for _, file := range []string{
		"/usr/share/man/man1/backout.1.gz", "/usr/share/bash-completion/completions/backout",
		"/usr/share/fish/vendor_completions.d/backout.fish", "/usr/share/zsh/vendor-completions/_backout",
	} {
		m.run("test", "-s", file)
	}
	if got := m.run("sh", "-c", "gzip -dc /usr/share/man/man1/backout.1.gz | grep -c '^.SS'"); got == "0\n" {
		t.Error("the manual page has no command")
	}
	if out, err := m.try("systemctl", "is-enabled", "backout"); err == nil {
		t.Errorf("the package enables the service: %s", out)
	}
	if got := m.run("systemd-analyze", "verify", "/usr/lib/systemd/system/backout.service"); got != "" {
		t.Errorf("systemd-analyze verify:\n%s", got)
	}
	// 0 is locked in, 10 is open.
	security := m.run("systemd-analyze", "security", "--no-pager", "backout.service", "--threshold=20")
	if exposure := regexp.MustCompile(`Overall exposure level for backout.service: [\d.]+ \w+`).FindString(security); exposure == "" {
		t.Errorf("systemd-analyze security:\n%s", security)
	} else {
		t.Log(exposure)
	}

	m.run("systemctl", "enable", "--now", "backout")
	until(t, "ready", m.ready)
	status := m.run("cat", "/proc/"+strings.TrimSpace(m.run("systemctl", "show", "--property=MainPID", "--value", "backout"))+"/status")
	for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in the process's status:\n%s", want, status)
		}
	}
	answer := m.ask(fmt.Sprintf("POST /api/v1/webhook/alertmanager HTTP/1.1\r\nHost: 127.0.0.1:9099\r\nConnection: close\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(firing), firing))
	if !strings.Contains(answer, " 200 ") {
		t.Fatalf("the webhook's answer:\n%s", answer)
	}
	var incidents string
	until(t, "an incident in observe mode", func() bool {
		incidents, _ = m.try("backout", "incident", "list")
		return strings.Contains(incidents, "waiting, mode")
	})

	// The operator's file survives an upgrade and a removal, the audit log even a purge.
	m.run("sh", "-c", "echo '# ours' >>/etc/backout/playbook.yaml")
	before := m.run("systemctl", "show", "--property=MainPID", "--value", "backout")
	m.run("dpkg", "--install", "/root/backout.deb")
	m.run("tail", "-n1", "/etc/backout/playbook.yaml")
	if after := m.run("systemctl", "show", "--property=MainPID", "--value", "backout"); after == before {
		t.Error("an upgrade left the old program running")
	}
	until(t, "ready after the upgrade", m.ready)
	if got := m.run("backout", "incident", "list"); !strings.Contains(got, "waiting, mode") {
		t.Errorf("after the upgrade:\n%s", got)
	}
	m.run("dpkg", "--remove", "backout")
	if got := m.run("tail", "-n1", "/etc/backout/playbook.yaml"); got != "# ours\n" {
		t.Errorf("the playbook ends with %q", got)
	}
	if out, err := m.try("systemctl", "is-active", "backout"); err == nil {
		t.Errorf("after the removal the service is %s", out)
	}
	m.run("dpkg", "--purge", "backout")
	m.run("test", "-s", "/var/lib/backout/backout.db")
	if out, err := m.try("ls", "/etc/backout/playbook.yaml"); err == nil {
		t.Errorf("after the purge: %s", out)
	}

	// rpm, on the same machine: its digests are right, its scripts run, and it asks for nothing that Debian's rpm cannot know.
	m.run("rpm", "--checksig", "--nosignature", "/root/backout.rpm")
	m.run("rpm", "--install", "--nodeps", "/root/backout.rpm")
	m.run("test", "-s", "/usr/share/zsh/site-functions/_backout")
	if got := m.run("stat", "-c", "%U:%G %a", "/etc/backout/playbook.yaml"); got != "root:backout 640\n" {
		t.Errorf("rpm installed the playbook as %s", got)
	}
	m.run("rpm", "--erase", "backout")
}

// ask sends backout a request and returns its answer, or "". The small Debian has no client of HTTP but bash.
func (m *machine) ask(request string) string {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.root, "root/request"), []byte(request), 0o600); err != nil {
		m.t.Fatal(err)
	}
	out, _ := m.try("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9099 && cat /root/request >&3 && cat <&3")
	return out
}

func (m *machine) ready() bool {
	m.t.Helper()
	return strings.Contains(m.ask("GET /-/ready HTTP/1.1\r\nHost: 127.0.0.1:9099\r\nConnection: close\r\n\r\n"), " 200 ")
}

// firing is an alert of the built-in playbook, as Alertmanager posts it.
const firing = `{"version":"4","groupKey":"{}:{}","receiver":"backout","status":"firing","alerts":[
 {"status":"firing","fingerprint":"00000000000000a1","startsAt":"2026-01-01T00:00:00Z","endsAt":"0001-01-01T00:00:00Z","annotations":{},
  "labels":{"alertname":"RollbackErrorRate","service":"social-intel","trigger":"error_rate","severity":"critical","rollout":"v2.0.0"}}]}`

func hostArch(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(output(t, "dpkg", "--print-architecture"))
}

// The image runs as compose.yaml runs it: another user than root, no capability, nothing to write but the data.
func TestImageRunsUnprivilegedAndHasItsTools(t *testing.T) {
	t.Parallel()
	loaded := output(t, "docker", "load", "--input", artifact(t, "_"+hostArch(t)+".oci.tar"))
	_, tag, ok := strings.Cut(strings.TrimSpace(loaded), "Loaded image: ")
	if !ok {
		t.Fatalf("docker load: %s", loaded)
	}
	t.Cleanup(func() { output(t, "docker", "image", "rm", "--force", tag) })
	hardened := []string{"--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges:true", "--volume=/data"}
	id := strings.TrimSpace(output(t, "docker", append(append([]string{"run", "--detach"}, hardened...), tag)...))
	t.Cleanup(func() { output(t, "docker", "rm", "--force", "--volumes", id) })
	until(t, "a server that answers", func() bool {
		// Its exit status says whether a person is needed.
		out, _ := exec.Command("docker", "exec", id, "backout", "status", "--output=json").CombinedOutput()
		return strings.Contains(string(out), `"mode": "observe"`)
	})
	for _, tool := range []struct{ command, want string }{
		{"backout version", "backout, version " + strings.TrimPrefix(tag, "backout:")},
		{"docker-compose version", "Docker Compose version v"},
		{"pg_dump --version", "pg_dump (PostgreSQL) "},
		{"pg_restore --version", "pg_restore (PostgreSQL) "},
		{"psql --version", "psql (PostgreSQL) "},
		{"id -un", "backout\n"},
		{"echo x | sed s/x/y/ | grep y", "y\n"},
		{"grep -c BEGIN /etc/ssl/certs/ca-certificates.crt", "1"}, // more than a hundred
		{"test -w /data && ! test -w /etc && ! test -w /tmp && echo read-only", "read-only\n"},
		{`for f in /usr/bin/* /usr/sbin/*; do if [ -u "$f" ] || [ -g "$f" ]; then echo "$f changes its user"; fi; done; echo none`, "none\n"},
	} {
		if got := output(t, "docker", "exec", id, "sh", "-c", tool.command); !strings.HasPrefix(got, tool.want) {
			t.Errorf("%s: %q, want %q", tool.command, got, tool.want)
		}
	}
}
