//go:build dist

package dist

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/locotoki/backout/remediation/store/storetest"
)

// Two machines, each with the unit of the package and replica.conf, on one PostgreSQL: one of them acts, and the other takes
// over when its unit is stopped, and when its machine is lost.
func TestTwoUnitsOnTwoMachinesAreReplicas(t *testing.T) {
	t.Parallel()
	links, err := os.MkdirTemp("", "s") // short: a socket's path ends at 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(links) })
	names := []string{"web-1", "web-2"}
	roots, sockets := map[string]string{}, []string{}
	for _, name := range names {
		root := newRoot(t)
		(&machine{t: t, root: root}).put(artifact(t, "_"+hostArch(t)+".deb"), "root/backout.deb")
		for file, text := range map[string]string{"etc/hostname": name + "\n", "srv/db/README": "PostgreSQL's socket\n"} {
			if err := os.MkdirAll(filepath.Join(root, filepath.Dir(file)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(filepath.Join(root, "srv/db"), 0o777); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(links, name)
		if err := os.Symlink(filepath.Join(root, "srv/db"), link); err != nil {
			t.Fatal(err)
		}
		roots[name], sockets = root, append(sockets, link)
	}
	if err := os.Chmod(links, 0o755); err != nil {
		t.Fatal(err)
	}
	server := storetest.NewServer(t, "unix_socket_directories = '"+strings.Join(sockets, ", ")+"'")
	dsn, err := url.Parse(server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	dsn.RawQuery = url.Values{"host": {"/srv/db"}, "port": {dsn.Port()}}.Encode()
	dsn.Host = ""

	machines := map[string]*machine{}
	for _, name := range names {
		m := boot(t, roots[name])
		machines[name] = m
		m.run("dpkg", "--install", "/root/backout.deb")
		m.run("install", "-D", "-m", "0644", "/usr/share/doc/backout/replica.conf", "/etc/systemd/system/backout.service.d/replica.conf")
		m.run("systemctl", "daemon-reload")
		if got := m.run("systemd-analyze", "verify", "backout.service"); got != "" {
			t.Errorf("systemd-analyze verify:\n%s", got)
		}
		// Without the database's address it does not act alone.
		m.run("systemctl", "start", "backout")
		until(t, "an error about the database", func() bool {
			return strings.Contains(m.run("journalctl", "--no-pager", "--unit=backout"), "storage.dsn_file.invalid")
		})
		m.run("systemctl", "stop", "backout")
		if out, err := m.try("ls", "/var/lib/backout/backout.db", "/var/lib/backout/data"); err == nil {
			t.Errorf("it began a database of its own: %s", out)
		}
		m.run("sh", "-c", fmt.Sprintf("echo '%s' >/etc/backout/dsn && chown backout:backout /etc/backout/dsn && chmod 0600 /etc/backout/dsn", dsn))
		m.run("sh", "-c", "echo 'storage: {dsn_file: dsn}' >>/etc/backout/backout.yml")
		_, _ = m.try("systemctl", "reset-failed", "backout") // where it has failed for good by now
		m.run("systemctl", "enable", "--now", "backout")
		until(t, name+" is ready", m.ready)
	}

	// acts is who acts, as one of the machines sees it, and how many it sees.
	acts := func(m *machine) (who string, seen int) {
		out, _ := m.try("backout", "status", "--output=json")
		var status struct {
			Replicas []struct {
				Name   string   `json:"name"`
				Realms []string `json:"realms"`
			} `json:"replicas"`
		}
		_ = json.Unmarshal([]byte(out), &status) // not yet
		for _, r := range status.Replicas {
			if slices.Contains(r.Realms, "") {
				who = r.Name
			}
		}
		return who, len(status.Replicas)
	}
	one, two := machines[names[0]], machines[names[1]]
	until(t, "both see both, and one that acts", func() bool {
		who, seen := acts(one)
		other, too := acts(two)
		return who == names[0] && other == who && seen == 2 && too == 2
	})
	one.run("systemctl", "stop", "backout")
	until(t, "the other acts once the unit is stopped", func() bool { who, _ := acts(two); return who == names[1] })
	one.run("systemctl", "start", "backout")
	until(t, "it is ready again", one.ready)
	if err := syscall.Kill(two.pid, syscall.SIGKILL); err != nil { // the first process, and so the machine
		t.Fatal(err)
	}
	until(t, "the other acts once the machine is lost", func() bool { who, _ := acts(one); return who == names[0] })
}
