package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// A step on a flag that LaunchDarkly keeps, of a service whose one task in a Swarm reports its flags.
func TestAFlagOfLaunchDarklyIsOffAndAServiceThatIgnoresItIsReported(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(s *site, p *process, says *atomic.Pointer[string]){
		"": verified, // it follows LaunchDarkly
		`{"FEATURE_A": true}`: func(s *site, p *process, says *atomic.Pointer[string]) {
			verified(s, p, says) // by LaunchDarkly, where it is off: on again would be worse
			s.until("what the service does is reported", func() bool { return strings.Contains(p.entriesText("drift"), "serves FEATURE_A=true, want false") })
		},
		`{"FEATURE_B": true}`: verified, // which a preflight reports
		`not yet`:             verified,
	} {
		t.Run("says "+name, func(t *testing.T) {
			t.Parallel()
			var says atomic.Pointer[string]
			says.Store(&name)
			mux := http.NewServeMux() // the engine of a Swarm's manager, and the task
			task := httptest.NewServer(mux)
			t.Cleanup(task.Close)
			at, err := url.Parse(task.URL)
			if err != nil {
				t.Fatal(err)
			}
			_, port, err := net.SplitHostPort(at.Host)
			if err != nil {
				t.Fatal(err)
			}
			s := newSite(t, func(s *site) {
				s.playbook = strings.NewReplacer("compose: {project_dir: /srv/shop, service: shop}", "swarm: {service: web}",
					"health: http://127.0.0.1:9000/health/, timeout: 30s", fmt.Sprintf("port: %q, health: /health, flags: /flags, timeout: 2s", port)).Replace(s.playbook)
				s.extra = fmt.Sprintf("docker: {host: \"tcp://%s\"}\n", at.Host)
			})
			spec := `{"ContainerSpec": {"Image": "shop:v2"}}`
			for path, answer := range map[string]string{
				"/_ping": "OK", "/health": "OK",
				"/v1.41/services": `[{"ID": "s1", "Spec": {"Name": "web", "TaskTemplate": ` + spec + `}, "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 1}}]`,
				"/v1.41/tasks": `[{"ID": "t1", "Slot": 1, "DesiredState": "running", "Spec": ` + spec + `, "Status": {"State": "running"},
					"NetworksAttachments": [{"Addresses": ["127.0.0.1/8"]}]}]`,
			} {
				mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Api-Version", "1.41")
					_, _ = w.Write([]byte(answer)) // who asked may be gone
				})
			}
			mux.HandleFunc("/flags", func(w http.ResponseWriter, _ *http.Request) {
				if text := *says.Load(); text != "" {
					_, _ = w.Write([]byte(text))
					return
				}
				_ = json.NewEncoder(w).Encode(map[string]bool{"FEATURE_A": s.flag.isOn()})
			})
			p := s.start("a")
			if status := p.alert(""); status != http.StatusOK {
				t.Fatalf("answered %d", status)
			}
			end(s, p, &says)
		})
	}
}

func verified(s *site, p *process, _ *atomic.Pointer[string]) {
	s.t.Helper()
	s.until("the step is verified", func() bool { return p.count("verified") == 1 })
	s.flagIs(false, 1)
}

// flagIs checks the flag's state, and how often it was changed.
func (s *site) flagIs(on bool, effects int) {
	s.t.Helper()
	if is, n := s.flag.state(); is != on || n != effects {
		s.t.Errorf("the flag is on: %v, after %d changes; want %v after %d", is, n, on, effects)
	}
}

// entriesText is the audit log's entries of one kind.
func (p *process) entriesText(kind string) string {
	_, text := p.ask(http.MethodGet, "/api/v1/audit?limit=1000&kind="+kind, "")
	return text
}
