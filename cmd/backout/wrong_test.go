package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
)

// every are all commands that do something, with their flags and arguments.
func every(t *testing.T) (all []*kingpin.CmdModel) {
	t.Helper()
	for _, m := range newCommands(nil, &bytes.Buffer{}, &bytes.Buffer{}).app.Model().FlattenedCommands() {
		if len(m.Commands) == 0 && m.Name != "help" && m.Name != "version" {
			all = append(all, m)
		}
	}
	if len(all) < 20 {
		t.Fatalf("there are only %d commands", len(all))
	}
	return all
}

func TestWhateverIsMistypedIsOneSentenceAndRunsNothing(t *testing.T) {
	for _, m := range every(t) {
		// Values that each flag of this name refuses, whatever the command.
		bad := map[string][]string{
			"output": {"", "yaml\x1b[2J"}, "url": {"::", "ftp://x", "localhost:9099"}, "limit": {"0", "-1", "x", "99999999999999999999"}, "for": {"-1h", "soon", "0"},
			"after": {"-1", "x"}, "lines": {"-1", "x"}, "status": {"shut"}, "scope": {"none"}, "mode": {"yolo"}, "token-file": {"/not/there"},
		}
		lines := [][]string{{"--nonsense"}, {"a", "b", "c", "d", "e", "f"}, {"-\x1b[2J"}, {"--nonsense=\u202e"}}
		for _, f := range m.Flags {
			for _, v := range bad[f.Name] {
				if f.Name == "output" && strings.Contains(m.FullCommand, "generate") {
					continue // a folder
				}
				lines = append(lines, []string{"--" + f.Name + "=" + v})
			}
			if !f.IsBoolFlag() {
				lines = append(lines, []string{"--" + f.Name})
			}
		}
		for _, line := range lines {
			r := backout(t, nil, append(strings.Fields(m.FullCommand), line...)...)
			what := m.FullCommand + " " + strings.Join(line, " ")
			if r.status != 2 || r.stdout != "" {
				t.Errorf("%q: status %d, stdout %.200q, stderr %.200q", what, r.status, r.stdout, r.stderr)
			}
			if !strings.HasPrefix(r.stderr, "backout: ") || strings.ContainsAny(r.stderr, "\x1b\u202e") || strings.Count(r.stderr, "\n") > 4+2*len(line) { // two for each file that is not there
				t.Errorf("%q says %q", what, r.stderr)
			}
		}
	}
}

func TestAFileOfTheOtherKindIsCalledByItsName(t *testing.T) {
	for _, c := range []struct{ arg, says, try string }{
		{"--playbook.file=../../docs/reference/backout.yml", "this is a configuration of backout, not a playbook", "--config.file=../../docs/reference/backout.yml"},
		{"--config.file=../../docs/reference/playbook.yaml", "this is a playbook, not a configuration of backout", "--playbook.file=../../docs/reference/playbook.yaml"},
		{"--playbook.file=nope.yaml", "read playbook: stat nope.yaml: no such file or directory", "backout init"},
	} {
		r := backout(t, nil, "check", c.arg)
		if r.status != 2 || strings.Count(r.stderr, "error: ") != 1 || !strings.Contains(r.stderr, c.says) || !strings.Contains(r.stderr, c.try) {
			t.Errorf("check %s: %d\n%s", c.arg, r.status, r.stderr)
		}
	}
}

func TestTheHelpOfEveryCommandFitsATerminal(t *testing.T) {
	for _, m := range every(t) {
		r := backout(t, nil, append([]string{"help"}, strings.Fields(m.FullCommand)...)...)
		if r.status != 0 || !strings.HasPrefix(r.stdout, "usage: backout "+m.FullCommand) {
			t.Errorf("help %s: %+v", m.FullCommand, r)
		}
		fits(t, r.stdout)
	}
}

func TestNoPasswordIsTakenInAnAddress(t *testing.T) {
	dir := t.TempDir()
	secretFile(t, dir+"/compose.yaml", "services:\n  web: {image: 'shop:v1'}\n")
	for _, args := range [][]string{
		{"init", "--service=web", "--project-dir=" + dir, "--prometheus=http://ann:hush@127.0.0.1:1"},
		{"backtest", "--from=1d", "--url=http://ann:hush@127.0.0.1:1", "--cache-dir=" + dir},
	} {
		r := backout(t, nil, args...)
		if r.status != 2 || !strings.Contains(r.stderr, "must not contain a user name or password") || strings.Contains(r.stdout+r.stderr, "hush") {
			t.Errorf("%s: %+v", args[0], r)
		}
	}
}

func TestAPortThatIsTakenIsSaidWithWhatToDo(t *testing.T) {
	var lc net.ListenConfig
	taken, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dsn := "--storage.dsn=sqlite:" + filepath.Join(t.TempDir(), "b.db")
	for _, c := range []struct{ flags, says string }{
		{"--web.listen-address=" + taken.Addr().String(), "try: another --web.listen-address, or stop the program that listens there"},
		{"--web.listen-address=127.0.0.1:0 --web.status-listen-address=" + taken.Addr().String(), "try: another address, or empty for none"},
	} {
		r := backout(t, nil, append([]string{"serve", dsn}, strings.Fields(c.flags)...)...)
		if r.status != 2 || !strings.Contains(r.stderr, taken.Addr().String()) || !strings.Contains(r.stderr, c.says) {
			t.Errorf("serve %s: %+v", c.flags, r)
		}
	}

	// Nobody asked for the default address of the public page: without it, backout serves.
	// Where another program has it already, that will do; it may also just be giving it up.
	for range 10 {
		l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:9098")
		if err == nil {
			defer l.Close()
		}
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		stderr := printed{words: "its default address is in use; set another with --web.status-listen-address", stop: stop}
		status := newCommands(nil, &bytes.Buffer{}, &stderr).exec(ctx, []string{"serve", dsn, "--web.listen-address=127.0.0.1:0"})
		stop()
		said := strings.Contains(stderr.text.String(), stderr.words)
		switch {
		case said && status == 0:
			return
		case said, err == nil:
			t.Fatalf("serve beside a taken 9098 ends with %d: %s", status, stderr.text.String())
		}
	}
	t.Fatal("nobody kept the port 9098")
}

func TestATokenGoesBeyondLoopbackByTLSOnly(t *testing.T) {
	for url, refused := range map[string]bool{
		"http://127.0.0.1:9099": false, "http://[::1]:9099": false, "http://localhost:9099": false, "https://backout.example": false,
		"http://backout.example:9099": true, "http://192.0.2.1": true, "http://127.0.0.1.example": true,
	} {
		for _, insecure := range []bool{false, true} {
			file := tokenFile(t)
			_, err := serverFlags{url: &url, tokenFile: &file, insecure: &insecure, env: func(string) string { return "" }}.client()
			if (err != nil) != (refused && !insecure) {
				t.Errorf("%s, --insecure-http %v: %v", url, insecure, err)
			}
		}
		none, insecure := "", false
		if _, err := (serverFlags{url: &url, tokenFile: &none, insecure: &insecure, env: func(string) string { return "" }}).client(); err != nil {
			t.Errorf("%s without a token: %v", url, err)
		}
	}
	r := backout(t, nil, "incident", "list", "--url=http://192.0.2.1", "--token-file="+tokenFile(t))
	if r.status != 2 || !strings.Contains(r.stderr, "--insecure-http") {
		t.Errorf("status %d: %s", r.status, r.stderr)
	}
}

func TestATokenFileThatOthersCanReadIsRefused(t *testing.T) {
	for mode, refused := range map[os.FileMode]bool{0o600: false, 0o400: false, 0o640: false, 0o644: true, 0o660: true} {
		file := tokenFile(t)
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		url, insecure := "http://127.0.0.1:9099", false
		_, err := serverFlags{url: &url, tokenFile: &file, insecure: &insecure, env: func(string) string { return "" }}.client()
		if (err != nil) != refused {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}
