package kubetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/locotoki/backout/deploy/kube"
)

const serviceEnv = "KUBETEST_SERVICE"

// ServicePort is where Service listens, at the pod's own address.
const ServicePort = 9000

// Main is the TestMain of a package whose pods run Service: the test's own program is the service.
func Main(m *testing.M) {
	if os.Getenv(serviceEnv) != "" {
		serve()
	}
	os.Exit(m.Run())
}

// Service is an image of a small service, for Node.Image. It listens at the address in LISTEN and answers GET /health/
// with 200 or, if UNREADY is set, with 503, and GET /env with its environment, a JSON list of NAME=value. If CRASH is set,
// it ends immediately. The test's TestMain has to call Main.
func Service(env ...string) kube.Image {
	return kube.Image{Program: "/proc/self/exe", Env: append([]string{serviceEnv + "=1"}, env...)}
}

// Deployment returns a Deployment of a Service with the label app=NAME.
func Deployment(name string, replicas int, image string, env map[string]string) map[string]any {
	type object = map[string]any
	vars := []any{
		object{"name": "POD_IP", "valueFrom": object{"fieldRef": object{"fieldPath": "status.podIP"}}},
		object{"name": "LISTEN", "value": fmt.Sprintf("$(POD_IP):%d", ServicePort)},
	}
	for k, v := range env {
		vars = append(vars, object{"name": k, "value": v})
	}
	return object{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": object{"name": name},
		"spec": object{
			"replicas": replicas, "selector": object{"matchLabels": object{"app": name}},
			"template": object{"metadata": object{"labels": object{"app": name}}, "spec": object{
				"terminationGracePeriodSeconds": 5,
				"containers": []any{object{
					"name": name, "image": image, "env": vars, "ports": []any{object{"name": "http", "containerPort": ServicePort}},
					"readinessProbe": object{"httpGet": object{"path": "/health/", "port": "http"}, "periodSeconds": 1},
				}},
			}},
		},
	}
}

// Env returns the environment that a ready pod of a Service has, as it says itself.
func (l *Lab) Env(p Pod) []string {
	l.t.Helper()
	client := &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(fmt.Sprintf("http://%s:%d/env", p.IP, ServicePort))
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	var env []string
	if err := json.NewDecoder(resp.Body).Decode(&env); err != nil {
		l.t.Fatal(err)
	}
	return env
}

func serve() {
	if os.Getenv("CRASH") != "" {
		fmt.Println("crashed")
		os.Exit(1)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health/", func(w http.ResponseWriter, _ *http.Request) {
		if os.Getenv("UNREADY") != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /env", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(os.Environ()) })
	server := &http.Server{Addr: os.Getenv("LISTEN"), Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() {
		<-stop
		_ = server.Close()
	}()
	fmt.Println("listens at", server.Addr)
	fmt.Println(server.ListenAndServe())
	os.Exit(0)
}
