package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/locotoki/backout/deploy/kube"
	"github.com/locotoki/backout/deploy/kube/kubetest"
)

// between returns a user's kubeconfig by which backout reaches the API server through the test: patch is called with each
// change, which forward sends on.
func between(t *testing.T, l *kubetest.Lab, user *kube.Client, patch func(forward func())) (kubeconfig string) {
	t.Helper()
	pool := x509.NewCertPool()
	server, err := url.Parse(l.Client.Server)
	if err != nil || !pool.AppendCertsFromPEM(l.CA) {
		t.Fatalf("the cluster's address or certificate: %v", err)
	}
	proxy := httputil.NewSingleHostReverseProxy(server)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	proxy.Transport = transport
	between := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if forward := func() { proxy.ServeHTTP(w, r) }; r.Method == http.MethodPatch && r.URL.Query().Get("dryRun") == "" {
			patch(forward)
		} else {
			forward()
		}
	}))
	t.Cleanup(func() {
		between.Close()
		transport.CloseIdleConnections()
	})
	through := *user
	through.Server, through.CA = between.URL, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: between.Certificate().Raw})
	return string(through.Kubeconfig(l.Namespace))
}

// A stage's share of the traffic on a Deployment: the process that acts is killed before or after its patch has its effect.
// The other one looks: it carries the promotion to its end, or says that nothing was changed.
func TestAPromotionOnADeploymentOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	service := filepath.Join(t.TempDir(), "service")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", service, "../../remediation/docker/testdata/service")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for name, after := range map[string]bool{"killed before the patch": false, "killed after the patch": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := kubetest.New(t)
			l.Node.Image("shop:v2", kube.Image{Program: service, Env: []string{"VERSION=v2"}})
			l.Put(kubetest.Deployment("shop", 3, "shop:v2", map[string]string{"FLAG": "0.01"}))
			l.Rolled("deployments", "shop")
			var calls, arrived atomic.Int32
			inside := make(chan struct{})
			kubeconfig := between(t, l, l.Rights("../../deploy/kubernetes/target", ""), func(forward func()) {
				first := calls.Add(1) == 1
				if after || !first {
					arrived.Add(1)
					forward()
				}
				if first {
					close(inside)
					panic(http.ErrAbortHandler)
				}
			})
			s := newSite(t, func(s *site) {
				s.playbook = strings.NewReplacer(
					"compose: {project_dir: /srv/shop, service: shop}", fmt.Sprintf("kubernetes: {context: lab, namespace: %s, deployment: shop, container: shop}", l.Namespace),
					"health: http://127.0.0.1:9000/health/, timeout: 30s", "port: http, health: /health/, version: /version, flags: /flags, timeout: 1m",
					`{name: FEATURE_A, off: "false", default: "false", fallback: none, launchdarkly: {project: shop, environment: production, key: feature-a}}`,
					`{name: FLAG, off: "0", default: "0", fallback: none}`,
					"flag: FEATURE_A", "flag: FLAG",
					"plans:\n", "  - {name: beta, traffic: \"0.1\", duration: 1d, success: [{indicator: error_rate, below: 0.001, window: 1h}]}\nplans:\n",
				).Replace(s.playbook)
				secretFile(s.t, filepath.Join(s.dir, "kubeconfig"), kubeconfig)
				s.extra = "kubernetes: {kubeconfig: kubeconfig}\n"
			})
			holder, other := s.pair()
			if status, text := other.ask(http.MethodPost, "/api/v1/rollout/start", `{"service":"shop","stage":"alpha","declare":true,"reason":"r"}`); status != http.StatusOK {
				t.Fatalf("started: %d %s", status, text)
			}
			promote := func() string {
				status, text := other.ask(http.MethodPost, "/api/v1/rollout/promote", `{"service":"shop","force":true,"reason":"r"}`)
				return fmt.Sprint(status, " ", text)
			}
			answered := make(chan string, 1)
			go func() { answered <- promote() }()
			s.until("the patch", func() bool {
				select {
				case <-inside:
					return true
				case text := <-answered:
					t.Fatalf("it was answered before: %s", text)
				default:
				}
				return false
			})
			holder.kill()
			tries := 1
			if !after { // nothing was changed: a person is told that it can be repeated
				s.until("the promotion is cancelled", func() bool {
					_, text := other.ask(http.MethodGet, "/api/v1/audit?limit=1000&kind=stage", "")
					return strings.Contains(text, "nothing was changed, and it can be repeated")
				})
				t.Log(promote())
				tries++
			}
			s.until("the rollout is at beta", func() bool {
				_, text := other.ask(http.MethodGet, "/api/v1/rollout", "")
				return strings.Contains(text, `"stage":"beta"`)
			})
			if int(calls.Load()) != tries || arrived.Load() != 1 {
				t.Errorf("%d patches were sent, and %d arrived", calls.Load(), arrived.Load())
			}
			pods := l.Pods("app=shop")
			for _, p := range pods {
				if said := podSays(t, p); !strings.Contains(said, `"FLAG":"0.1"`) {
					t.Errorf("pod %s says %s", p.Name, said)
				}
			}
			if len(pods) != 3 {
				t.Errorf("%d pods", len(pods))
			}
			export := exportOf(t, s.server)
			inOrderOf(t, export)
			for kind, want := range map[string]int{"intent": tries, "verified": 1} {
				n := 0
				for _, line := range strings.Split(export, "\n") {
					if strings.Contains(line, `"kind":"`+kind+`"`) && strings.Contains(line, `"action":"flag_set"`) {
						n++
					}
				}
				if n != want {
					t.Errorf("%d entries %s of flag_set, want %d", n, kind, want)
				}
			}
			if t.Failed() {
				t.Log(export)
			}
		})
	}
}

func podSays(t *testing.T, p kubetest.Pod) string {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://%s:%d/flags", p.IP, kubetest.ServicePort)) //nolint:noctx // a pod of the test's own
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close() //nolint:errcheck // it was only read
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}
