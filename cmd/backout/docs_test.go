package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rogpeppe/go-internal/txtar"
)

// The pages say how their blocks of commands are to be taken, after the language:
//
//	sh           is run by this test
//	sh server    is run beside a server
//	sh incident  is run beside a server that has one open incident
//	sh parse     has its commands parsed: it needs Docker, Prometheus or PostgreSQL, or does not end
//	console      has those of backout parsed: the others need root, a cluster or a tool that the tests do not fetch
//	LANG FILE    is what FILE holds when the commands run
//
// All blocks of a page share a folder. Any other block must not hold a command.
type docBlock struct{ lang, arg, text string }

var (
	consoleCommand = regexp.MustCompile(`(?m)(?:^|&& )(backout .*)$`)
	anyCommand     = regexp.MustCompile(`(?m)^(backout|make|sqlite3|pg_dump|pg_restore|psql|docker|kubectl|systemctl|dpkg|rpm|install) `)
)

var fence = regexp.MustCompile("(?ms)^( *)```([a-z]*) ?(\\S*)\n(.*?)^ *```$")

// docPages are README.md and the pages of docs, by their path in the checkout.
func docPages(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/*/*.md"} {
		files, err := filepath.Glob("../../" + pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("no page %s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			pages[strings.TrimPrefix(filepath.ToSlash(file), "../../")] = string(text)
		}
	}
	return pages
}

func docBlocks(page string) []docBlock {
	var all []docBlock
	for _, m := range fence.FindAllStringSubmatch(page, -1) {
		text := strings.TrimPrefix(strings.ReplaceAll("\n"+m[4], "\n"+m[1], "\n"), "\n")
		all = append(all, docBlock{m[2], m[3], text})
	}
	return all
}

// parses is a program that accepts what backout would, and does nothing.
func parses() {
	if _, err := newCommands(os.Environ(), io.Discard, os.Stderr).parse(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(statusWrong)
	}
}

const docServer = `chmod 600 oncall.token
address ADDR
env BACKOUT_URL=http://$ADDR BACKOUT_TOKEN_FILE=$WORK/server/oncall.token
cp oncall.token server/oncall.token
chmod 600 server/oncall.token
env TOKEN='correct horse battery staple'
exec backout serve --config.file=server/backout.yml --web.listen-address=$ADDR --web.status-listen-address= --storage.dsn=sqlite:server/b.db &serve&
await http://$ADDR/-/ready
`

const docIncident = `http 200 POST http://$ADDR/api/v1/webhook/alertmanager server/firing.json
await http://$ADDR/api/v1/audit?kind=held '"reason":"mode"'
`

var docServerFiles = []txtar.File{
	{Name: "oncall.token", Data: []byte("correct horse battery staple\n")},
	{Name: "server/backout.yml", Data: []byte("prometheus: {url: http://127.0.0.1:1}\nalertmanager: {url: http://127.0.0.1:1}\n" +
		"tokens: [{name: oncall, role: commander, file: oncall.token}]\n")},
	{Name: "server/firing.json", Data: []byte(`{"version":"4","groupKey":"{}:{x=\"y\"}","receiver":"backout","status":"firing","alerts":[
 {"status":"firing","fingerprint":"00000000000000a1","startsAt":"2026-01-01T00:00:00Z","endsAt":"0001-01-01T00:00:00Z",
  "labels":{"alertname":"RollbackErrorRate","service":"social-intel","trigger":"error_rate","severity":"critical","rollout":"v2.0.0"},"annotations":{}}]}`)},
}

// docMore is what is checked after the commands of a page.
var docMore = map[string]string{
	// The token that Alertmanager is told to read is the one that backout knows.
	"README.md": `exec sed -n 's/^ *credentials_file: //p' generated/deploy/alertmanager.yml
stdout '^.*/am.token$'
exec sh -c 'cmp am.token "$(sed -n "s/^ *credentials_file: //p" generated/deploy/alertmanager.yml)"'
`,
	// The verifier agrees with backout on a good log, and finds a changed and a missing entry.
	"docs/audit.md": `exec python3 verify.py audit.jsonl
stdout '^ok: [0-9]+ entries, head [0-9]+:[0-9a-f]{64}$'
cp stdout by-python
exec backout audit verify
cmp stdout by-python
exec sed -i '2s/"kind":"[a-z]*"/"kind":"closed"/' audit.jsonl
! exec python3 verify.py audit.jsonl
stderr 'entry 2 was changed'
exec sh -c 'backout audit export | sed 2d > cut.jsonl'
! exec python3 verify.py cut.jsonl
stderr 'entry 3 does not follow entry 1'
`,
}

func TestDocumentedCommandsWork(t *testing.T) {
	for _, tool := range []string{"bash", "make", "python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is not in PATH: run the tests by make test, which fetches it", tool)
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for page, text := range docPages(t) {
		// What only parses runs in a shell where backout and make do nothing.
		archive := txtar.Archive{Files: slices.Clone(docServerFiles)}
		run := "set -euo pipefail\n"
		only := run + "backout() { backout-parses \"$@\"; }\nmake() { command make -n -C '" + root + "' \"$@\" >make.out; }\n"
		beside, commands := "", 0
		for _, b := range docBlocks(text) {
			switch {
			case b.lang == "sh" && b.arg == "parse":
				only += b.text
				commands++
			case b.lang == "sh" && (b.arg == "" || b.arg == "server" || b.arg == "incident"):
				if b.arg != "" && beside != docServer+docIncident {
					beside = docServer
					if b.arg == "incident" {
						beside += docIncident
					}
				}
				run += regexp.MustCompile(`\bID\b`).ReplaceAllString(strings.NewReplacer("127.0.0.1:9099", "$ADDR", "/backup/backout.db", "server/b.db",
					"\nbackout status  ", "\n! backout status  ").Replace("\n"+b.text), "inc-1") // an incident in observe mode needs a person
				commands++
			case b.lang == "sh":
				t.Errorf("%s: a block of commands is marked %q, and this test knows server, incident and parse", page, b.arg)
			case b.lang == "console":
				for _, m := range consoleCommand.FindAllStringSubmatch(b.text, -1) {
					only += m[1] + "\n"
					commands++
				}
			case b.arg != "":
				archive.Files = append(archive.Files, txtar.File{Name: b.arg, Data: []byte(b.text)})
			case b.lang != "" || !strings.HasPrefix(page, "docs/reference/"): // there, usage lines
				if anyCommand.MatchString(b.text) {
					t.Errorf("%s: a block has a command, and is marked neither sh nor console:\n%s", page, b.text)
				}
			}
		}
		if commands == 0 {
			continue
		}
		script := "exec bash only.sh\n" + beside + "exec bash run.sh\n" + docMore[page]
		if beside != "" {
			script += "signal TERM\nwait serve\n"
		}
		for _, file := range []string{"alerts/playbook.yaml", "docs/reference/playbook.yaml", "docs/reference/backout.yml"} {
			content, err := os.ReadFile("../../" + file)
			if err != nil {
				t.Fatal(err)
			}
			archive.Files = append(archive.Files, txtar.File{Name: file, Data: content})
		}
		archive.Files = append(archive.Files, txtar.File{Name: "only.sh", Data: []byte(only)}, txtar.File{Name: "run.sh", Data: []byte(run)})
		archive.Comment = []byte(script)
		name := strings.NewReplacer("/", "-", ".md", ".txtar").Replace(page)
		if err := os.WriteFile(filepath.Join(dir, name), txtar.Format(&archive), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, scripts(dir))
}

// inline is a command in running text.
var inline = regexp.MustCompile("`backout ([a-z]+)(?: ([a-z]+))?")

func TestDocsNameCommandsThatExist(t *testing.T) {
	known := map[string]bool{"help": true}
	for _, c := range newCommands(nil, io.Discard, io.Discard).app.Model().FlattenedCommands() {
		first, second, nested := strings.Cut(c.FullCommand, " ")
		known[first], known[first+" "+second] = true, true
		if nested {
			known[first+" ..."] = true
		}
	}
	for page, text := range docPages(t) {
		for _, m := range inline.FindAllStringSubmatch(text, -1) {
			if !known[m[1]] || m[2] != "" && known[m[1]+" ..."] && !known[m[1]+" "+m[2]] {
				t.Errorf("%s: there is no command %s`", page, m[0])
			}
		}
	}
}

var (
	docLink    = regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	docHeading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notInSlug  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

func TestDocsLinkToWhatIsThere(t *testing.T) {
	for page, text := range docPages(t) {
		for _, m := range docLink.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			file := "../../" + page
			if m[1] != "" {
				file = filepath.Join(filepath.Dir(file), m[1])
			}
			content, err := os.ReadFile(file)
			if err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			found := m[2] == ""
			for _, h := range docHeading.FindAllStringSubmatch(string(content), -1) {
				slug := strings.ReplaceAll(notInSlug.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-")
				found = found || slug == m[2]
			}
			if !found {
				t.Errorf("%s: %s has no heading #%s", page, m[1], m[2])
			}
		}
	}
}
