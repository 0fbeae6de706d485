package kubernetes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/deploy/kube"
	"github.com/locotoki/backout/deploy/kube/kubetest"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/action/actiontest"
)

type object = map[string]any

const (
	op       = "inc-1/1-flag_off@1700000000"
	flagName = "FEATURE_A"
	secret   = "hunter2-of-the-database"
	// serviceEnv makes the test's own program the service that the pods run.
	serviceEnv = "BACKOUT_TEST_SERVICE"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(serviceEnv) != "":
		serve()
	case os.Getenv(killedEnv) != "":
		applyAndDie()
	}
	os.Exit(m.Run())
}

// serve answers with its version and its flags at the pod's address.
func serve() {
	if os.Getenv("CRASH") != "" {
		os.Exit(1)
	}
	if path := os.Getenv("CRASH_WHEN_ON"); path != "" && os.Getenv(flagName) == "1" {
		go func() { // once the file is there
			for range time.Tick(50 * time.Millisecond) {
				if _, err := os.Stat(path); err == nil {
					os.Exit(1)
				}
			}
		}()
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health/", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, os.Getenv("VERSION")) })
	mux.HandleFunc("GET /flags", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{flagName: cmp.Or(os.Getenv("STUCK"), os.Getenv(flagName))})
	})
	server := &http.Server{Addr: os.Getenv("LISTEN"), Handler: mux, ReadHeaderTimeout: time.Minute}
	fmt.Println(server.ListenAndServe())
	os.Exit(1)
}

func image(env ...string) kube.Image {
	return kube.Image{Program: "/proc/self/exe", Env: append([]string{serviceEnv + "=1"}, env...)}
}

// world is a service in a namespace of a real Kubernetes: a Deployment or StatefulSet
// named shop, of two pods of version v2.0.0, with its flag on.
type world struct {
	*kubetest.Lab
	t      *testing.T
	target alerts.Target
	flag   alerts.Flag
	// kubeconfig is who backout is.
	kubeconfig string
	made       []object     // as they were created
	patches    atomic.Int32 // that were sent, by all clients of the world
}

// newWorld starts the service; edit changes its manifest beforehand.
func newWorld(t *testing.T, edit ...func(manifest object)) *world {
	t.Helper()
	return start(t, kubetest.New(t), edit...)
}

func start(t *testing.T, l *kubetest.Lab, edit ...func(manifest object)) *world {
	t.Helper()
	w := &world{Lab: l, t: t, flag: alerts.Flag{Name: flagName, Off: "0"}, target: alerts.Target{
		Kubernetes: &alerts.KubernetesTarget{Context: "lab", Namespace: l.Namespace, Deployment: "shop", Container: "shop"},
		Probe:      alerts.Probe{Port: "http", Health: "/health/", Version: "/version", Flags: "/flags", Timeout: model.Duration(time.Minute)},
	}}
	w.kubeconfig = l.Kubeconfig(l.Client)
	for _, version := range []string{"v1.0.0", "v2.0.0"} {
		l.Node.Image("shop:"+version, image("VERSION="+version))
	}
	l.Node.Image("shop:crash", image("CRASH=1"))
	manifest := kubetest.Deployment("shop", 2, "shop:v2.0.0", map[string]string{flagName: "1"})
	vars := theContainer(manifest)["env"].([]any)
	theContainer(manifest)["env"] = append(vars[:2:2], object{"name": "PASSWORD", "value": secret}, vars[2])
	for _, e := range edit {
		e(manifest)
	}
	if manifest["kind"] == "StatefulSet" {
		w.target.Kubernetes.Deployment, w.target.Kubernetes.StatefulSet = "", "shop"
	}
	// Created, not applied: an apply refuses what a template may hold twice.
	if err := w.Do(t.Context(), http.MethodPost, w.Apps(w.resource(), ""), manifest, nil); err != nil {
		t.Fatal(err)
	}
	w.made = append(w.made, manifest)
	return w
}

// again makes the service what it was at first, for another part of its test.
func (w *world) again(t *testing.T) *world {
	t.Helper()
	w.t, w.Lab = t, w.For(t)
	for _, o := range w.made {
		path := w.Apps(w.resource(), "shop")
		if o["kind"] == "ConfigMap" {
			path = w.Core("configmaps", "shop-flags")
		}
		if err := w.Do(t.Context(), http.MethodPut, path, o, nil); err != nil {
			t.Fatal(err)
		}
	}
	return w.ready()
}

// remove deletes what there is at the paths.
func (w *world) remove(paths ...string) {
	w.t.Helper()
	for _, path := range paths {
		if err := w.Do(w.t.Context(), http.MethodDelete, path, object{"propagationPolicy": "Background"}, nil); err != nil && kube.Code(err) != http.StatusNotFound {
			w.t.Error(err)
		}
	}
}

// at is a value inside of a manifest or an answer, nil if there is none.
func at(o any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := o.(map[string]any)
			o = m[p]
		case int:
			l, _ := o.([]any)
			if p >= len(l) {
				return nil
			}
			o = l[p]
		}
	}
	return o
}

func theSpec(manifest object) object { return manifest["spec"].(object) }

func theContainer(manifest object) object {
	return at(manifest, "spec", "template", "spec", "containers", 0).(object)
}

// count sets how many pods there are.
func count(n int) func(object) { return func(m object) { theSpec(m)["replicas"] = n } }

// statefulSet makes a StatefulSet of the Deployment.
func statefulSet(m object) {
	m["kind"] = "StatefulSet"
	theSpec(m)["serviceName"] = "shop"
}

// env replaces the flag in the container's environment.
func env(entries ...any) func(object) {
	return func(m object) {
		vars := theContainer(m)["env"].([]any)
		theContainer(m)["env"] = append(vars[:3:3], entries...) // instead of the flag
	}
}

// withConfigMap lets the container take the flag from a ConfigMap.
func withConfigMap(t *testing.T, l *kubetest.Lab, edit ...func(manifest object)) *world {
	t.Helper()
	flags := object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "shop-flags"}, "data": object{flagName: "1", "OTHER": "x"}}
	l.Put(flags)
	w := start(t, l, append(edit, env(), func(m object) {
		theContainer(m)["envFrom"] = []any{object{"configMapRef": object{"name": "shop-flags"}}}
	})...)
	w.target.Kubernetes.Flags.ConfigMap, w.made = "shop-flags", append(w.made, flags)
	return w
}

func (w *world) resource() string { return w.target.Kubernetes.Kind() + "s" }

func (w *world) ready() *world {
	w.t.Helper()
	w.Rolled(w.resource(), "shop")
	return w
}

// get is the workload.
func (w *world) get() (o object) {
	w.t.Helper()
	if err := w.Get(w.t.Context(), w.Apps(w.resource(), "shop"), &o); err != nil {
		w.t.Fatal(err)
	}
	return o
}

func (w *world) configMap() (o object) {
	w.t.Helper()
	if w.target.Kubernetes.Flags.ConfigMap == "" {
		return nil
	}
	if err := w.Get(w.t.Context(), w.Core("configmaps", "shop-flags"), &o); err != nil {
		w.t.Fatal(err)
	}
	return o
}

// edit is a change by somebody else.
func (w *world) edit(patch string) {
	w.t.Helper()
	if err := w.Patch(w.t.Context(), kube.StrategicPatch, w.Apps(w.resource(), "shop")+"?fieldManager=kubectl-edit", []byte(patch), nil); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) setVariable(value string) {
	w.edit(`{"spec":{"template":{"spec":{"containers":[{"name":"shop","env":[{"name":"` + flagName + `","value":"` + value + `"}]}]}}}}`)
}

// setData is a change of the ConfigMap by somebody else.
func (w *world) setData(value string) {
	w.t.Helper()
	if err := w.Patch(w.t.Context(), kube.MergePatch, w.Core("configmaps", "shop-flags"), []byte(`{"data":{"`+flagName+`":"`+value+`"}}`), nil); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) setImage(image string) {
	w.edit(`{"spec":{"template":{"spec":{"containers":[{"name":"shop","image":"` + image + `"}]}}}}`)
}

// crashing waits until a pod crashes.
func (w *world) crashing() {
	w.t.Helper()
	w.Eventually("a pod that crashes", func() error {
		for _, p := range w.Pods("app=shop") {
			if p.Waiting == "CrashLoopBackOff" {
				return nil
			}
		}
		return fmt.Errorf("%+v", w.Pods("app=shop"))
	})
}

// value is the flag as the object has it.
func (w *world) value() string {
	for _, v := range at(w.get(), "spec", "template", "spec", "containers", 0, "env").([]any) {
		if at(v, "name") == flagName {
			return fmt.Sprint(at(v, "value"))
		}
	}
	return "not set"
}

// state is all that an undo restores.
func (w *world) state() string {
	o, c := w.get(), w.configMap()
	marked := func(o object) string {
		return fmt.Sprint(at(o, "metadata", "annotations", markAnnotation), at(o, "metadata", "annotations", fluxAnnotation))
	}
	return fmt.Sprintf("%s %v, template %v, data %v, marks %s %s", w.value(), at(o, "spec", "template", "spec", "containers", 0, "image"),
		at(o, "spec", "template", "metadata", "annotations"), c["data"], marked(o), marked(c))
}

func (w *world) generation() int { return int(at(w.get(), "metadata", "generation").(float64)) }

// ask is what a pod serves at a path, or why it does not.
func (w *world) ask(p kubetest.Pod, path string) string {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(fmt.Sprintf("http://%s:%d%s", p.IP, kubetest.ServicePort, path))
	if err != nil {
		return err.Error()
	}
	body, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(body))
}

// said is what each pod says its flag and its version are.
func (w *world) said() (all []string) {
	w.t.Helper()
	for _, p := range w.Pods("app=shop") {
		if p.Deleting {
			continue
		}
		var flags map[string]string
		if said := w.ask(p, "/flags"); json.Unmarshal([]byte(said), &flags) != nil {
			w.t.Fatal(said)
		}
		all = append(all, flags[flagName]+" "+strings.TrimPrefix(p.Image, "shop:"))
	}
	return all
}

func (w *world) expectSaid(want string, n int) {
	w.t.Helper()
	said := w.said()
	if len(said) != n {
		w.t.Errorf("%d pods say %q, want %d", len(said), said, n)
	}
	for _, s := range said {
		if s != want {
			w.t.Errorf("the pods say %q, want %s", said, want)
		}
	}
}

// client is backout's; trip, if it is not nil, stands between it and the API server.
func (w *world) client(trip func(req *http.Request, next http.RoundTripper) (*http.Response, error)) *Client {
	w.t.Helper()
	c, err := New(Options{Kubeconfig: w.kubeconfig, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	c.wrap = func(next http.RoundTripper) http.RoundTripper {
		return tripper(func(req *http.Request) (*http.Response, error) {
			if changes(req) {
				w.patches.Add(1)
				if trip != nil {
					return trip(req, next)
				}
			}
			return next.RoundTrip(req)
		})
	}
	return c
}

// changes reports a request that changes something.
func changes(req *http.Request) bool {
	return (req.Method == http.MethodPatch || req.Method == http.MethodDelete) && !strings.Contains(req.URL.RawQuery, "dryRun")
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func (w *world) flagOff(c *Client) *flagChange {
	w.t.Helper()
	a, err := c.FlagOff(w.target, w.flag)
	if err != nil {
		w.t.Fatal(err)
	}
	return a.(*flagChange)
}

// imageBack is the action that puts the image back to a version.
func (w *world) imageBack(c *Client, version string) *imageChange {
	w.t.Helper()
	a, err := c.ImageRetag(w.target, "", version)
	if err != nil {
		w.t.Fatal(err)
	}
	return a.(*imageChange)
}

func (w *world) look(a remediation.Action, want remediation.Position) json.RawMessage {
	w.t.Helper()
	look, err := a.Look(w.t.Context(), op)
	if err != nil {
		w.t.Fatal(err)
	}
	if look.Position != want {
		w.t.Fatalf("it is %s, want %s: %s", look.Position, want, w.state())
	}
	return look.Snapshot
}

// apply carries an action out, as the engine does.
func (w *world) apply(a remediation.Action, op string) (before json.RawMessage) {
	w.t.Helper()
	before = w.look(a, remediation.Untouched)
	if err := a.Apply(w.t.Context(), op, before); err != nil {
		w.t.Fatal(err)
	}
	if err := a.Verify(w.t.Context(), op); err != nil {
		w.t.Fatal(err)
	}
	w.look(a, remediation.Wanted)
	return before
}

var errCut = errors.New("connection cut by the test")

// cut is a connection whose n-th change meets a fault.
func (w *world) cut(n int, f actiontest.Fault) (c *Client, fired func() bool) {
	calls, hit := 0, false
	return w.client(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if calls++; calls-1 != n {
			return next.RoundTrip(req)
		}
		if hit = true; f == actiontest.Before {
			return nil, errCut
		}
		res, err := next.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		if err := res.Body.Close(); err != nil {
			return nil, err
		}
		if f == actiontest.Hang {
			return nil, actiontest.Unanswered(req.Context())
		}
		return nil, errCut
	}), func() bool { return hit }
}

// fixture is the conformance suite's; bind makes the action.
func (w *world) fixture(risk alerts.Risk, bind func(*Client) remediation.Action, meddle func()) *actiontest.Fixture {
	return &actiontest.Fixture{
		Risk: risk, Action: bind(w.client(nil)), Secrets: []string{secret, w.Token},
		State: func(*testing.T) string { return w.state() },
		Effects: func(*testing.T) int {
			n := w.generation()
			if c := w.configMap(); c != nil {
				var version int
				if _, err := fmt.Sscan(at(c, "metadata", "resourceVersion").(string), &version); err != nil {
					w.t.Fatal(err)
				}
				n += version
			}
			return n
		},
		Meddle: func(*testing.T) { meddle() },
		Cut: func(_ *testing.T, n int, f actiontest.Fault) (remediation.Action, func() bool) {
			c, fired := w.cut(n, f)
			return bind(c), fired
		},
	}
}

// during calls each again and again while run runs.
func during(t *testing.T, run func(), each func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			each(ctx)
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}()
	run()
	cancel()
	<-over
}
