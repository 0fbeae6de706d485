package compose

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"

	"github.com/locotoki/backout/remediation/docker/projectfile"
)

// folder is a project folder that no engine knows.
type folder struct {
	*testing.T
	dir string
}

func newFolder(t *testing.T, files map[string]string) folder {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f := folder{T: t, dir: dir}
	for name, text := range files {
		f.write(name, text)
	}
	return f
}

func (f folder) write(name, text string) {
	f.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.Fatal(err)
	}
}

func (f folder) defines(service string) (Definition, error) {
	p, err := Locate(projectfile.Folders{f.dir}, f.dir, "", nil)
	if err != nil {
		return Definition{}, err
	}
	return p.Define(service, nil)
}

func shown(s Setting, err error) string {
	switch {
	case err != nil:
		return "error"
	case !s.Set:
		return "unset"
	}
	return s.Value
}

func TestVariableIsWhatComposeWouldGiveTheService(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"mapping", `{services: {web: {environment: {FLAG: "${FLAG}"}}}}`, "1"},
		{"number", `{services: {web: {environment: {FLAG: 7}}}}`, "7"},
		{"default used", `{services: {web: {environment: {FLAG: "${NONE:-5}"}}}}`, "5"},
		{"empty counts as unset with a colon", `{services: {web: {environment: {FLAG: "${EMPTY:-5}"}}}}`, "5"},
		{"empty is set without", `{services: {web: {environment: {FLAG: "${EMPTY-5}"}}}}`, ""},
		{"another variable that is missing does not matter", `{services: {web: {image: "${IMAGE:?}", environment: {A: "${B:?}", FLAG: "${FLAG}"}}}}`, "1"},
		{"a port whose variable is missing does not matter", `{services: {web: {image: a, ports: ["${PORT:?}:9000"], environment: {FLAG: "${FLAG}"}}}}`, "1"},
		{"env_file", `{services: {web: {image: a, env_file: web.env}}}`, "3"},
		{"environment over env_file", `{services: {web: {image: a, env_file: [web.env], environment: {FLAG: "7"}}}}`, "7"},
		{"an env_file that is not there", `{services: {web: {image: a, env_file: none.env}}}`, "unset"},
		{"not there", `{services: {web: {image: a, environment: {A: b}}}}`, "unset"},
		{"a profile that nobody asked for", `{services: {web: {image: a, profiles: [x], environment: {FLAG: "7"}}}}`, "7"},
		{"extends in another file", `{services: {web: {extends: {file: sub/base.yml, service: base}}}}`, "8"},
		{"include", `{include: [sub/web.yml], services: {db: {image: a}}}`, "9"},
		{"include of several files", `{include: [{path: [sub/web.yml, sub/over.yml]}]}`, "10"},
		{"second document", "services: {web: {image: a, environment: {FLAG: '7'}}}\n---\nservices: {web: {environment: {FLAG: '11'}}}\n", "11"},
		{"circle", `{services: {web: {extends: web}}}`, "error"},
		{"no such service", `{services: {db: {image: a}}}`, "error"},
		{"not yaml", "services:\n\t- x", "error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFolder(t, map[string]string{
				"compose.yaml": c.file, ".env": "FLAG=1\nEMPTY=\n", "web.env": "FLAG=2\nFLAG=3\n",
				"sub/base.yml": `{services: {base: {image: a, environment: [FLAG=8]}}}`, "sub/web.yml": `{services: {web: {image: a, environment: [FLAG=9]}}}`,
				"sub/over.yml": `{services: {web: {environment: [FLAG=10]}}}`,
			})
			d, err := f.defines("web")
			if got := shown(d.Variable("FLAG"), err); got != c.want {
				t.Errorf("got %q (%v), want %q", got, err, c.want)
			}
		})
	}
}

func TestTheImageIsWhatComposeWouldRun(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"plain", `{services: {web: {image: social-intel}}}`, "social-intel:latest"},
		{"variable", `{services: {web: {image: "social-intel:${TAG}"}}}`, "social-intel:v1"},
		{"default", `{services: {web: {image: "social-intel:${NONE:-v2}"}}}`, "social-intel:v2"},
		{"required", `{services: {web: {image: "social-intel:${NONE:?}"}}}`, "needs the variable NONE"},
		{"another service's does not matter", `{services: {db: {image: "${NONE:?}"}, web: {image: social-intel}}}`, "social-intel:latest"},
		{"extends", `{services: {base: {image: social-intel}, web: {extends: base, build: .}}}`, "social-intel:latest"},
		{"only built", `{services: {web: {build: .}}}`, "names no image"},
		{"not a name", `{services: {web: {image: "../x"}}}`, "is not an image's name"},
	} {
		f := newFolder(t, map[string]string{"compose.yaml": c.file, ".env": "TAG=v1\n"})
		d, err := f.defines("web")
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		ref, err := d.Runs(nil)
		if got := fmt.Sprint(ref, err); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// Of several env files the last that has a variable wins; it is written there.
func TestAFlagIsWrittenIntoTheEnvFileThatDecides(t *testing.T) {
	for _, c := range []struct {
		name, one, two, now, decides string
	}{
		{"the first alone has it", "FLAG=1\nREPO=a\n", "LEVEL=info\n", "1", "one.env"},
		{"both have it", "FLAG=1\nREPO=a\n", "FLAG=2\n", "2", "two.env"},
		{"the second has it", "REPO=a\n", "FLAG=2\n", "2", "two.env"},
		{"neither has it", "REPO=a\n", "LEVEL=info\n", "unset", "two.env"},
		{"the second takes it over without a value", "FLAG=1\nREPO=a\n", "FLAG\n", "1", "one.env"},
		{"the second computes it from the first", "REPO=a\nSHARE=3\n", "FLAG=${SHARE}\n", "3", "two.env"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFolder(t, map[string]string{
				"compose.yaml": `{services: {web: {image: "${REPO:?}", environment: [FLAG]}}}`, "one.env": c.one, "two.env": c.two, ".env": "FLAG=9\n",
			})
			p := Project{in: projectfile.Folders{f.dir}, Dir: f.dir, name: "p", Files: []string{filepath.Join(f.dir, "compose.yaml")}, Explicit: true,
				EnvFiles: []string{filepath.Join(f.dir, "one.env"), filepath.Join(f.dir, "two.env")}}
			d, err := p.Define("web", nil)
			if got := shown(d.Variable("FLAG"), err); got != c.now || d.missing != nil {
				t.Errorf("it is %s (%v, %v), want %s", got, err, d.missing, c.now)
			}
			path, data, _, err := p.EnvFile("FLAG")
			if err != nil || filepath.Base(path) != c.decides {
				t.Fatalf("%s decides, %v; want %s", path, err, c.decides)
			}
			after, err := projectfile.SetEnv(data, "FLAG", "0")
			if err != nil {
				t.Fatal(err)
			}
			d, err = p.Define("web", Contents{path: after})
			if got := shown(d.Variable("FLAG"), err); got != "0" {
				t.Errorf("written into %s it is %s, %v", path, got, err)
			}
		})
	}
}

func TestALabelsListOfFilesIsTakenApart(t *testing.T) {
	for label, want := range map[string]string{
		"": "", "docker-compose.yml": "docker-compose.yml", "a.yml,b.yml": "a.yml|b.yml", "/p/a.yml,/p/b.yml": "/p/a.yml|/p/b.yml", "/p,q/a.yml,/p,q/b.yml": "/p,q/a.yml|/p,q/b.yml",
	} {
		if got := strings.Join(listed(label), "|"); got != want {
			t.Errorf("%s: %s, want %s", label, got, want)
		}
	}
}

// What is wrong with a file is told without what is in it.
func TestAFileThatCannotBeReadIsToldOfWithoutItsSecrets(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"an unclosed quote":     {".env": "A=1\nPASSWORD='hunter2-and-on\n", "compose.yaml": "services: {web: {image: a}}"},
		"a name with spaces":    {".env": "hunter2-and-on = 1 = ?\n!hunter2-and-on\n", "compose.yaml": "services: {web: {image: a}}"},
		"a number that is none": {".env": "PASSWORD=hunter2-and-on\n", "compose.yaml": "services: {web: {image: a, scale: \"${PASSWORD}\", stop_grace_period: \"${PASSWORD}\"}}"},
	} {
		f := newFolder(t, files)
		_, err := f.defines("web")
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "try:") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var projects = map[string]map[string]string{
	"plain":             {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"${FEATURE_X:-0}\"}\n", ".env": "FEATURE_X=0.1\n"},
	"list":              {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment:\n      - FEATURE_X=${FEATURE_X:-0}\n", ".env": "FEATURE_X=0.1\n"},
	"list-bare":         {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment:\n      - FEATURE_X\n", ".env": "FEATURE_X=0.1\n"},
	"map-null":          {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment:\n      FEATURE_X:\n", ".env": "FEATURE_X=0.1\n"},
	"anchor-merge":      {"compose.yaml": "x-env: &env\n  FEATURE_X: \"${FEATURE_X:-0}\"\nservices:\n  shop:\n    image: r/s:latest\n    environment:\n      <<: *env\n      B: 1\n", ".env": "FEATURE_X=0.1\n"},
	"anchor-list":       {"compose.yaml": "x-a: &a {FEATURE_X: \"${FEATURE_X:-0}\"}\nx-b: &b {FEATURE_X: '0.9'}\nservices:\n  shop:\n    image: r/s:latest\n    environment:\n      <<: [*a, *b]\n", ".env": "FEATURE_X=0.1\n"},
	"service-merge":     {"compose.yaml": "x-base: &base\n  image: r/s:latest\n  environment: {FEATURE_X: \"${FEATURE_X:-0}\"}\nservices:\n  shop:\n    <<: *base\n    restart: always\n", ".env": "FEATURE_X=0.1\n"},
	"env-alias":         {"compose.yaml": "x-env: &env {FEATURE_X: \"${FEATURE_X:-0}\"}\nservices:\n  shop:\n    image: r/s:latest\n    environment: *env\n", ".env": "FEATURE_X=0.1\n"},
	"extends":           {"compose.yaml": "services:\n  base:\n    image: r/s:latest\n    environment: {FEATURE_X: \"${FEATURE_X:-0}\"}\n  shop:\n    extends: {service: base}\n", ".env": "FEATURE_X=0.1\n"},
	"extends-file":      {"compose.yaml": "services:\n  shop:\n    extends: {service: base, file: common/base.yaml}\n", "common/base.yaml": "services:\n  base:\n    image: r/s:latest\n    env_file: base.env\n", "common/base.env": "FEATURE_X=0.1\n", ".env": "FEATURE_X=0.2\n"},
	"extends-str":       {"compose.yaml": "services:\n  base:\n    image: r/s:latest\n    environment: {FEATURE_X: \"0.3\"}\n  shop:\n    extends: base\n", ".env": "FEATURE_X=0.2\n"},
	"env_file":          {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    env_file: app.env\n", "app.env": "FEATURE_X=0.1\n", ".env": "FEATURE_X=0.2\n"},
	"env_file-dot":      {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    env_file: .env\n", ".env": "FEATURE_X=0.1\n"},
	"env_file-list":     {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    env_file: [a.env, b.env]\n", "a.env": "FEATURE_X=0.1\n", "b.env": "FEATURE_X=0.2\n", ".env": ""},
	"env_file-map":      {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    env_file:\n      - path: a.env\n        required: false\n      - path: missing.env\n        required: false\n", "a.env": "FEATURE_X=0.1\n", ".env": ""},
	"env_file-raw":      {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    env_file:\n      - path: a.env\n        format: raw\n", "a.env": "FEATURE_X='0.1'\n", ".env": ""},
	"env_file-interp":   {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    env_file: a.env\n", "a.env": "FEATURE_X=${SHARE}\n", ".env": "SHARE=0.1\n"},
	"env_file-self":     {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    env_file: a.env\n", "a.env": "FEATURE_X=${FEATURE_X}\n", ".env": "FEATURE_X=0.1\n"},
	"env-interp":        {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"${FEATURE_X}\"}\n", ".env": "SHARE=0.1\nFEATURE_X=${SHARE}\n"},
	"env-quoted-dollar": {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"$${FEATURE_X}\"}\n", ".env": "FEATURE_X=0.1\n"},
	"other-name":        {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"${SHARE_OF_X:-0.1}\"}\n", ".env": "FEATURE_X=0.2\n"},
	"bool":              {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: true}\n", ".env": ""},
	"float":             {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: 0.10}\n", ".env": ""},
	"reset":             {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"0.1\"}\n", "compose.override.yaml": "services:\n  shop:\n    environment:\n      FEATURE_X: !reset null\n", ".env": "FEATURE_X=0.2\n"},
	"override-tag":      {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"0.1\"}\n", "compose.override.yaml": "services:\n  shop:\n    environment: !override\n      OTHER: \"1\"\n", ".env": "FEATURE_X=0.2\n"},
	"reset-all":         {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"0.1\"}\n", "compose.override.yaml": "services:\n  shop:\n    environment: !reset {}\n", ".env": "FEATURE_X=0.2\n"},
	"override-plain":    {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"${FEATURE_X}\"}\n", "compose.override.yaml": "services:\n  shop:\n    image: r/s:dev\n    environment: [\"FEATURE_X=0.7\"]\n", ".env": "FEATURE_X=0.2\n"},
	"include":           {"compose.yaml": "include: [sub/compose.yaml]\n", "sub/compose.yaml": "services:\n  shop:\n    image: r/s:${TAG:-latest}\n    environment: {FEATURE_X: \"${FEATURE_X:-0}\"}\n", "sub/.env": "FEATURE_X=0.3\nTAG=v9\n", ".env": "A=1\n"},
	"include-list":      {"compose.yaml": "include:\n  - path: [sub/a.yaml, sub/b.yaml]\n", "sub/a.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"${FEATURE_X:-0}\"}\n", "sub/b.yaml": "services:\n  shop:\n    environment: {FEATURE_X: \"0.4\"}\n", ".env": "FEATURE_X=0.1\n"},
	"include-ovr":       {"compose.yaml": "include: [sub/compose.yaml]\n", "sub/compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"${FEATURE_X:-0}\"}\n", "compose.override.yaml": "services:\n  shop:\n    environment: {FEATURE_X: \"0.5\"}\n", ".env": "FEATURE_X=0.1\n"},
	"include-envfile":   {"compose.yaml": "include:\n  - path: sub/compose.yaml\n    env_file: other.env\n", "sub/compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"${FEATURE_X:-0}\"}\n", "other.env": "FEATURE_X=0.6\n", ".env": "A=1\n"},
	"multi-doc":         {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"${FEATURE_X:-0}\"}\n---\nservices:\n  shop:\n    environment: {FEATURE_X: \"0.8\"}\n", ".env": "FEATURE_X=0.1\n"},
	"both-names":        {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"${FEATURE_X:-0}\"}\n", "docker-compose.yml": "services:\n  shop:\n    image: r/s:old\n", ".env": "FEATURE_X=0.1\n"},
	"default-nested":    {"compose.yaml": "services:\n  shop:\n    image: ${REG:-r}/${NAME:-s}:${TAG:-latest}\n    environment: {FEATURE_X: \"${FEATURE_X:-${SHARE:-0.1}}\"}\n", ".env": "SHARE=0.2\n"},
	"alt":               {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"${ON:+${FEATURE_X}}\"}\n", ".env": "ON=1\nFEATURE_X=0.2\n"},
	"required":          {"compose.yaml": "services:\n  shop:\n    image: ${IMG:?}\n    environment: {FEATURE_X: \"${FEATURE_X:?need}\"}\n", ".env": "IMG=r/s:latest\nFEATURE_X=0.2\n"},
	"quoted-list":       {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment:\n      - \"FEATURE_X='${FEATURE_X}'\"\n", ".env": "FEATURE_X=0.1\n"},
	"profile":           {"compose.yaml": "services:\n  shop:\n    profiles: [prod]\n    image: r/s:latest\n    environment: {FEATURE_X: \"${FEATURE_X:-0}\"}\n", ".env": "COMPOSE_PROFILES=prod\nFEATURE_X=0.1\n"},
	"dup-list":          {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment:\n      - FEATURE_X=${FEATURE_X}\n      - FEATURE_X=0.9\n", ".env": "FEATURE_X=0.1\n"},
	"spaces-list":       {"compose.yaml": "services:\n  shop:\n    image: r/s:latest\n    environment:\n      - FEATURE_X = ${FEATURE_X}\n", ".env": "FEATURE_X=0.1\n"},
	"label_file":        {"compose.yaml": "name: other\nservices:\n  shop:\n    image: r/s:latest\n    environment: {FEATURE_X: \"${FEATURE_X:-0}\", P: \"$COMPOSE_PROJECT_NAME\"}\n", ".env": "FEATURE_X=0.1\n"},
}

// Each project is a folder's files. What its service gets, now and with the flag
// written, and its image are what compose's own command makes of them.
func TestEveryProjectIsReadAsComposeReadsIt(t *testing.T) {
	if len(projects) < 41 {
		t.Fatalf("%d projects", len(projects))
	}
	for name, files := range projects {
		t.Run(name, func(t *testing.T) {
			f := newFolder(t, files)
			theirs := func() (flag, image string) {
				if name == "env_file-raw" { // compose's command knows this format, its library does not
					return "'0.1'", "r/s:latest"
				}
				o, err := cli.NewProjectOptions(nil, cli.WithWorkingDirectory(f.dir), cli.WithEnvFiles(), cli.WithDotEnv, cli.WithDefaultConfigPath, cli.WithProfiles([]string{"prod"}))
				if err != nil {
					t.Fatal(err)
				}
				p, err := o.LoadProject(t.Context())
				if err != nil {
					return "error", "error"
				}
				s := p.Services["shop"]
				if v := s.Environment["FEATURE_X"]; v != nil {
					return *v, s.Image
				}
				return "unset", s.Image
			}
			ours := func() (flag, image string) {
				d, err := f.defines("shop")
				if err == nil {
					err = d.missing
				}
				if err != nil {
					return "error", "error"
				}
				return shown(d.Variable("FEATURE_X"), nil), d.Spec.Image
			}
			for _, when := range []string{"now", "off"} {
				flag, image := theirs()
				if f, i := ours(); f != flag || i != image {
					t.Errorf("%s: %q of image %q; compose says %q of %q", when, f, i, flag, image)
				}
				after, err := projectfile.SetEnv([]byte(files[".env"]), "FEATURE_X", "0")
				if err != nil {
					t.Fatal(err)
				}
				f.write(".env", string(after))
			}
		})
	}
}
