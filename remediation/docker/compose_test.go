package docker

import (
	"fmt"
	"testing"
)

func readFrom(files map[string]string) func(string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		if s, ok := files[path]; ok {
			return []byte(s), nil
		}
		return nil, fmt.Errorf("%s: no such file", path)
	}
}

func TestVariableIsWhatComposeWouldGiveTheService(t *testing.T) {
	env := map[string]setting{"FLAG": {"1", true}, "EMPTY": {"", true}}
	for _, c := range []struct{ name, file, want string }{
		{"mapping", `{services: {web: {environment: {FLAG: "${FLAG}"}}}}`, "1"},
		{"list", `{services: {web: {environment: ["A=2", "FLAG=$FLAG"]}}}`, "1"},
		{"bare in a list", `{services: {web: {environment: [FLAG]}}}`, "1"},
		{"bare in a mapping", `{services: {web: {environment: {FLAG: }}}}`, "1"},
		{"literal", `{services: {web: {environment: {FLAG: "7"}}}}`, "7"},
		{"number", `{services: {web: {environment: {FLAG: 7}}}}`, "7"},
		{"default not used", `{services: {web: {environment: {FLAG: "${FLAG:-5}"}}}}`, "1"},
		{"default used", `{services: {web: {environment: {FLAG: "${NONE:-5}"}}}}`, "5"},
		{"empty counts as unset with a colon", `{services: {web: {environment: {FLAG: "${EMPTY:-5}"}}}}`, "5"},
		{"empty is set without", `{services: {web: {environment: {FLAG: "${EMPTY-5}"}}}}`, ""},
		{"nested default", `{services: {web: {environment: {FLAG: "${NONE:-${FLAG}}"}}}}`, "1"},
		{"escaped", `{services: {web: {environment: {FLAG: "$$FLAG"}}}}`, "$FLAG"},
		{"another variable that is missing does not matter", `{services: {web: {image: "${IMAGE:?}", environment: {A: "${B:?}", FLAG: "${FLAG}"}}}}`, "1"},
		{"env_file", `{services: {web: {env_file: web.env}}}`, "3"},
		{"environment over env_file", `{services: {web: {env_file: [web.env], environment: {FLAG: "7"}}}}`, "7"},
		{"not there", `{services: {web: {environment: {A: b}}}}`, "unset"},
		{"anchor and merge", "x-c: &c {FLAG: '7'}\nservices: {web: {environment: {<<: *c, A: b}}}", "7"},
		{"extends", `{services: {base: {environment: {FLAG: "7"}}, web: {extends: base}}}`, "7"},
		{"extends in another file", `{services: {web: {extends: {file: sub/base.yml, service: base}}}}`, "8"},
		{"include", `{include: [sub/web.yml], services: {db: {}}}`, "9"},
		{"circle", `{services: {web: {extends: web}}}`, "error"},
		{"no such service", `{services: {db: {}}}`, "missing"},
		{"not yaml", "services:\n\t- x", "error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := composeReader{env: env, read: readFrom(map[string]string{
				"/p/docker-compose.yml": c.file, "/p/web.env": "FLAG=2\nFLAG=3\n",
				"/p/sub/base.yml": `{services: {base: {environment: [FLAG=8]}}}`, "/p/sub/web.yml": `{services: {web: {environment: [FLAG=9]}}}`,
			})}
			s, found, err := r.variable([]string{"/p/docker-compose.yml"}, "web", "FLAG")
			got := s.value
			switch {
			case err != nil:
				got = "error"
			case !found:
				got = "missing"
			case !s.set:
				got = "unset"
			}
			if got != c.want {
				t.Errorf("got %q (%v), want %q", got, err, c.want)
			}
		})
	}
}

func TestALaterFileWins(t *testing.T) {
	r := composeReader{read: readFrom(map[string]string{
		"/p/a.yml": `{services: {web: {environment: {FLAG: "1"}}}}`, "/p/b.yml": `{services: {web: {environment: {FLAG: "0"}}}}`,
	})}
	s, _, err := r.variable([]string{"/p/a.yml", "/p/b.yml"}, "web", "FLAG")
	if err != nil || s != (setting{"0", true}) {
		t.Errorf("got %+v, %v", s, err)
	}
}
