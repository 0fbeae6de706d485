package kube

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// podObject is what a node reads of a pod. The API server has filled in every default.
type podObject struct {
	Metadata struct {
		Name, Namespace, UID       string
		DeletionTimestamp          *time.Time
		DeletionGracePeriodSeconds *int64
	}
	Spec struct {
		NodeName, ServiceAccountName string
		Containers                   []container
		Volumes                      []volume
		SecurityContext              securityContext
	}
	Status struct{ Phase string }
}

func (p *podObject) path() string {
	return "/api/v1/namespaces/" + p.Metadata.Namespace + "/pods/" + p.Metadata.Name
}

type container struct {
	Name, Image   string
	Command, Args []string
	Env           []variable
	EnvFrom       []struct {
		Prefix                  string
		ConfigMapRef, SecretRef *reference
	}
	Ports []struct {
		Name          string
		ContainerPort int
	}
	ReadinessProbe, LivenessProbe *probe
	VolumeMounts                  []mount
	SecurityContext               securityContext
}

type variable struct {
	Name, Value string
	ValueFrom   *struct {
		FieldRef                      *struct{ FieldPath string }
		ConfigMapKeyRef, SecretKeyRef *reference
	}
}

type reference struct {
	Name, Key string
	Optional  bool
}

type probe struct {
	HTTPGet                                                              *struct{ Path, Scheme, Port target }
	TCPSocket                                                            *struct{ Port target }
	PeriodSeconds, FailureThreshold, InitialDelaySeconds, TimeoutSeconds int
}

// target is a string, or a number as one: a port has a name or a number.
type target string

func (t *target) UnmarshalJSON(raw []byte) error {
	*t = target(strings.Trim(string(raw), `"`))
	return nil
}

// running is a pod on its node.
type running struct {
	node   *Node
	pod    podObject
	ip     string
	output *tail
	since  time.Time
	over   chan struct{} // closed when its processes have ended and the API server knows it

	ctx     context.Context // ends when the pod is to end
	end     context.CancelFunc
	kill    chan struct{} // closed when its processes may no longer end by themselves
	killed  sync.Once
	changed chan struct{}
	roots   []string // of the containers whose images have one

	mu         sync.Mutex
	containers []state
	ready      bool
	readySince time.Time
}

type state struct {
	process         *exec.Cmd
	started         time.Time
	ready           bool
	restarts        int
	reason, message string // why it is waiting
	last            *exit
}

type exit struct {
	code int
	at   time.Time
}

func newRunning(n *Node, p podObject, ip string, out *tail) *running {
	r := &running{node: n, pod: p, ip: ip, output: out, since: time.Now(), over: make(chan struct{}), kill: make(chan struct{}),
		changed: make(chan struct{}, 1), containers: make([]state, len(p.Spec.Containers)), roots: make([]string, len(p.Spec.Containers)), readySince: time.Now()}
	r.ctx, r.end = context.WithCancel(context.Background())
	for i := range r.containers {
		r.containers[i].reason = "ContainerCreating"
	}
	return r
}

// stop ends the pod's processes: SIGTERM, and SIGKILL after grace. A second call may shorten the grace.
func (r *running) stop(grace time.Duration) {
	r.end()
	time.AfterFunc(grace, func() { r.killed.Do(func() { close(r.kill) }) })
}

// run returns when the pod's processes have ended.
func (r *running) run() {
	reports, end := context.WithCancel(context.Background())
	reported := make(chan struct{})
	go func() { defer close(reported); r.report(reports) }()
	var all sync.WaitGroup
	for i := range r.pod.Spec.Containers {
		all.Go(func() { r.keep(i) })
	}
	all.Wait()
	end()
	<-reported
}

// Back-offs of a container: the kubelet's begin at 10 s, which no test should wait for.
const (
	firstBackoff = time.Second
	lastBackoff  = 5 * time.Minute
	pullAgain    = 250 * time.Millisecond
)

// keep runs a container until the pod is to end.
func (r *running) keep(i int) {
	for backoff := firstBackoff; r.ctx.Err() == nil; {
		cmd, err := r.command(i)
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			r.waits(i, err)
			pause(r.ctx, pullAgain)
			continue
		}
		r.set(i, func(s *state) {
			s.process, s.started, s.reason, s.message = cmd, time.Now(), "", ""
			s.ready = r.pod.Spec.Containers[i].ReadinessProbe == nil
		})
		r.attend(i, cmd)
		if r.ctx.Err() != nil {
			return
		}
		again := backoff
		r.set(i, func(s *state) {
			s.process, s.ready, s.last = nil, false, &exit{cmd.ProcessState.ExitCode(), time.Now()}
			if s.restarts == 0 { // the first restart is immediate
				again = 0
				return
			}
			s.reason, s.message = "CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container", backoff)
			backoff = min(2*backoff, lastBackoff)
		})
		pause(r.ctx, again)
		r.set(i, func(s *state) { s.restarts++ })
	}
}

// waiting is the error of a container that cannot be started.
type waiting struct{ reason, message string }

func (w *waiting) Error() string { return w.reason + ": " + w.message }

func (r *running) waits(i int, err error) {
	why := &waiting{"RunContainerError", err.Error()}
	errors.As(err, &why)
	r.set(i, func(s *state) {
		s.ready = false
		if why.reason == "ErrImagePull" && (s.reason == "ErrImagePull" || s.reason == "ImagePullBackOff") {
			s.reason, s.message = "ImagePullBackOff", "Back-off pulling image"
			return
		}
		s.reason, s.message = why.reason, why.message
	})
}

// attend probes a container's process until it ends, and ends it when the pod is to end.
func (r *running) attend(i int, cmd *exec.Cmd) {
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }() // its exit code is in cmd.ProcessState
	probing, stop := context.WithCancel(r.ctx)
	defer stop()
	c := &r.pod.Spec.Containers[i]
	go r.probe(probing, c, c.ReadinessProbe, func(ok bool) {
		r.set(i, func(s *state) { s.ready = ok && s.process == cmd })
	})
	go r.probe(probing, c, c.LivenessProbe, func(ok bool) {
		if !ok {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
	})
	select {
	case <-ended:
	case <-r.ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-r.kill:
		}
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // and what it has started
	<-ended
}

// command is a container's program with its environment.
func (r *running) command(i int) (*exec.Cmd, error) {
	c := &r.pod.Spec.Containers[i]
	r.node.mu.Lock()
	image, ok := r.node.images[c.Image]
	r.node.mu.Unlock()
	if !ok {
		return nil, &waiting{"ErrImagePull", fmt.Sprintf("image %q: not found", c.Image)}
	}
	env, err := r.environment(c)
	if err != nil {
		return nil, &waiting{"CreateContainerConfigError", err.Error()}
	}
	program, args := image.Program, image.Args
	if len(c.Command) > 0 {
		program, args = env.expand(c.Command[0]), c.Command[1:]
	}
	if len(c.Args) > 0 {
		args = append(args[:len(args):len(args)], c.Args...)
	}
	cmd := exec.Command(program)
	for _, a := range args {
		cmd.Args = append(cmd.Args, env.expand(a))
	}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(r.node.client.Server, "https://"))
	if err != nil {
		return nil, err
	}
	cmd.Env = append([]string{"HOSTNAME=" + r.pod.Metadata.Name, "KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port}, image.Env...)
	cmd.Env = append(cmd.Env, env.list...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = r.output, r.output, ChildAttributes()
	cmd.WaitDelay = time.Second // a grandchild may hold the output open
	if image.Root != nil {
		root, err := r.root(i, image)
		if err != nil {
			return nil, &waiting{"CreateContainerConfigError", err.Error()}
		}
		cmd.Dir = "/"
		r.confine(cmd.SysProcAttr, c, root)
	}
	return cmd, nil
}

// environment is a container's, in order; a later variable wins.
type environment struct {
	list  []string
	known []string // for strings.NewReplacer
}

func (e *environment) add(name, value string) {
	e.list = append(e.list, name+"="+value)
	e.known = append([]string{"$(" + name + ")", value}, e.known...)
}

// expand replaces $(NAME) by the value of a variable that is known so far.
func (e *environment) expand(s string) string { return strings.NewReplacer(e.known...).Replace(s) }

func (r *running) environment(c *container) (*environment, error) {
	env := &environment{}
	for _, from := range c.EnvFrom {
		kind, ref := "configmaps", from.ConfigMapRef
		if ref == nil {
			kind, ref = "secrets", from.SecretRef
		}
		data, err := r.data(kind, ref)
		if err != nil {
			return nil, err
		}
		for name, value := range data {
			env.add(from.Prefix+name, value)
		}
	}
	for _, v := range c.Env {
		value, err := r.value(env, v)
		if err != nil {
			return nil, err
		}
		env.add(v.Name, value)
	}
	return env, nil
}

func (r *running) value(env *environment, v variable) (string, error) {
	from := v.ValueFrom
	switch {
	case from == nil:
		return env.expand(v.Value), nil
	case from.ConfigMapKeyRef != nil:
		data, err := r.data("configmaps", from.ConfigMapKeyRef)
		return data[from.ConfigMapKeyRef.Key], err
	case from.SecretKeyRef != nil:
		data, err := r.data("secrets", from.SecretKeyRef)
		return data[from.SecretKeyRef.Key], err
	case from.FieldRef != nil:
		return r.field(from.FieldRef.FieldPath)
	}
	return "", fmt.Errorf("variable %s: not a source that this node knows", v.Name)
}

// field is what the downward API says.
func (r *running) field(path string) (string, error) {
	m := r.pod.Metadata
	if value, ok := map[string]string{"status.podIP": r.ip, "metadata.name": m.Name, "metadata.namespace": m.Namespace, "metadata.uid": m.UID}[path]; ok {
		return value, nil
	}
	return "", fmt.Errorf("field %s: not one that this node knows", path)
}

// data returns what a config map or a secret holds.
func (r *running) data(kind string, ref *reference) (map[string]string, error) {
	path := "/api/v1/namespaces/" + r.pod.Metadata.Namespace + "/" + kind + "/" + ref.Name
	var plain struct{ Data map[string]string }
	if kind == "secrets" {
		var secret struct{ Data map[string][]byte }
		err := r.node.client.Get(r.ctx, path, &secret)
		plain.Data = map[string]string{}
		for k, v := range secret.Data {
			plain.Data[k] = string(v)
		}
		return plain.Data, absent(err, ref)
	}
	err := r.node.client.Get(r.ctx, path, &plain)
	return plain.Data, absent(err, ref)
}

func absent(err error, ref *reference) error {
	if ref.Optional && Code(err) == http.StatusNotFound {
		return nil
	}
	return err
}

// A container that is not ready is probed more often at first, as the kubelet probes immediately after a start.
const (
	probesAtStart = 40
	betweenThem   = 50 * time.Millisecond
)

// probe calls told when the answer changes.
func (r *running) probe(ctx context.Context, c *container, p *probe, told func(ok bool)) {
	if p == nil || (p.HTTPGet == nil && p.TCPSocket == nil) {
		return
	}
	client := &http.Client{Timeout: time.Duration(p.TimeoutSeconds) * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	pause(ctx, time.Duration(p.InitialDelaySeconds)*time.Second)
	was, failures, early := false, 0, 0
	for ctx.Err() == nil {
		switch err := r.probeOnce(ctx, client, c, p); {
		case ctx.Err() != nil:
			return
		case err == nil:
			failures = 0
			if !was {
				was = true
				told(true)
			}
		case !was && early < probesAtStart:
			early++
			pause(ctx, betweenThem)
			continue
		default:
			failures++
			if failures == p.FailureThreshold {
				was = false
				told(false)
			}
		}
		pause(ctx, time.Duration(p.PeriodSeconds)*time.Second)
	}
}

func (r *running) probeOnce(ctx context.Context, client *http.Client, c *container, p *probe) error {
	address := func(port target) string {
		for _, named := range c.Ports {
			if named.Name == string(port) {
				port = target(strconv.Itoa(named.ContainerPort))
			}
		}
		return net.JoinHostPort(r.ip, string(port))
	}
	if p.HTTPGet == nil {
		d := net.Dialer{Timeout: client.Timeout}
		conn, err := d.DialContext(ctx, "tcp", address(p.TCPSocket.Port))
		if err != nil {
			return err
		}
		return conn.Close()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.ToLower(string(p.HTTPGet.Scheme))+"://"+address(p.HTTPGet.Port)+string(p.HTTPGet.Path), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return errors.New(resp.Status)
	}
	return nil
}

// set changes a container's state, which is then reported.
func (r *running) set(i int, change func(*state)) {
	r.mu.Lock()
	change(&r.containers[i])
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// report writes the pod's status whenever it has changed, and again until the API server takes it.
func (r *running) report(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.changed:
		}
		for ctx.Err() == nil {
			err := r.node.client.Patch(ctx, StrategicPatch, r.pod.path()+"/status", object{"metadata": object{"uid": r.pod.Metadata.UID}, "status": r.status()}, nil)
			if err == nil || Code(err) == http.StatusNotFound || Code(err) == http.StatusConflict {
				break // 404 and 409: the pod is gone, or another has its name
			}
			pause(ctx, 100*time.Millisecond)
		}
	}
}

func (r *running) status() object {
	r.mu.Lock()
	defer r.mu.Unlock()
	phase, ready := "Pending", true
	statuses := []any{}
	for i, s := range r.containers {
		if s.process != nil || s.last != nil {
			phase = "Running"
		}
		ready = ready && s.ready
		statuses = append(statuses, s.object(&r.pod.Spec.Containers[i], r.node.digest(r.pod.Spec.Containers[i].Image)))
	}
	if ready != r.ready {
		r.ready, r.readySince = ready, time.Now()
	}
	condition := func(kind string, ok bool, since time.Time) object {
		status := "False"
		if ok {
			status = "True"
		}
		return object{"type": kind, "status": status, "lastTransitionTime": timestamp(since)}
	}
	return object{
		"phase": phase, "podIP": r.ip, "podIPs": []any{object{"ip": r.ip}}, "hostIP": "127.0.0.1", "startTime": timestamp(r.since),
		"conditions": []any{condition("PodScheduled", true, r.since), condition("Initialized", true, r.since),
			condition("ContainersReady", ready, r.readySince), condition("Ready", ready, r.readySince)},
		"containerStatuses": statuses,
	}
}

// object is a container's status; null takes away what an earlier one said.
func (s *state) object(c *container, digest string) object {
	now := object{"running": nil, "waiting": nil, "terminated": nil}
	var ended object
	if s.last != nil {
		ended = object{"exitCode": s.last.code, "reason": "Error", "finishedAt": timestamp(s.last.at)}
	}
	switch {
	case s.process != nil:
		now["running"] = object{"startedAt": timestamp(s.started)}
	case s.reason != "":
		now["waiting"] = object{"reason": s.reason, "message": s.message}
	default:
		now["terminated"] = ended
	}
	status := object{"name": c.Name, "image": c.Image, "imageID": digest, "ready": s.ready, "started": s.process != nil, "restartCount": s.restarts, "state": now}
	if ended != nil {
		status["lastState"] = object{"terminated": ended}
	}
	return status
}

// digest is an image's, which is the same for two names of one image; "" if the node has no such image.
func (n *Node) digest(name string) string {
	n.mu.Lock()
	image, ok := n.images[name]
	n.mu.Unlock()
	if !ok {
		return ""
	}
	raw, _ := json.Marshal(image) // of strings
	repository, _, _ := strings.Cut(name, ":")
	return fmt.Sprintf("%s@sha256:%x", repository, sha256.Sum256(raw))
}
