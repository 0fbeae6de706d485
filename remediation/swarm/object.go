package swarm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/hint"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

const (
	// markLabel holds, as JSON, which operation set which field of the service.
	markLabel = "backout.dev/operation"
	// unstuckLabel begins a hanging update anew: it names the tasks on lost nodes that Swarm's update waited for.
	unstuckLabel = "backout.dev/unstuck"
	// stackLabel names the stack that has the service; imageLabel is the image as the
	// stack file names it: docker stack deploy leaves the service's image alone while the
	// two agree, unless it resolves images always.
	stackLabel = "com.docker.stack.namespace"
	imageLabel = "com.docker.stack.image"
)

// What of the API's objects is read here. Durations are nanoseconds.
type (
	service struct {
		ID      string
		Version struct{ Index uint64 }
		// Raw is the spec as it was read, which an update sends back; Spec is what of it
		// is known here.
		Raw          json.RawMessage `json:"Spec"`
		Spec         spec            `json:"-"`
		UpdateStatus struct{ State, Message string }
		// ServiceStatus counts tasks; nil of an engine older than API 1.41.
		ServiceStatus *struct{ RunningTasks, DesiredTasks int }
	}
	spec struct {
		Name         string
		Labels       map[string]string
		TaskTemplate taskSpec
		Mode         struct {
			Replicated, Global       *struct{}
			ReplicatedJob, GlobalJob *struct{}
		}
		UpdateConfig *updateConfig
	}
	updateConfig struct {
		Parallelism          int
		Delay, Monitor       time.Duration
		FailureAction, Order string
	}
	taskSpec struct {
		ContainerSpec containerSpec
		RestartPolicy *struct{ Delay *time.Duration }
	}
	containerSpec struct {
		Image           string
		Env             []string
		StopGracePeriod *time.Duration
		Healthcheck     *struct {
			Test                  []string
			Interval, StartPeriod time.Duration
		}
	}
	task struct {
		ID, NodeID, DesiredState string
		Slot                     int
		Spec                     taskSpec
		Status                   struct {
			Timestamp           time.Time
			State, Message, Err string
			PortStatus          struct {
				Ports []struct {
					TargetPort, PublishedPort int
					Protocol, PublishMode     string
				}
			}
		}
		NetworksAttachments []struct {
			Network struct {
				Spec struct {
					Name                string
					Ingress             bool
					DriverConfiguration struct{ Name string }
				}
			}
			Addresses []string
		}
	}
	node struct {
		ID            string
		Status        struct{ Addr, State string }
		ManagerStatus struct{ Addr string }
	}
)

// state is a service as it was seen.
type state struct {
	t alerts.SwarmTarget
	service
}

// String is the service as errors call it.
func (s *state) String() string { return "service " + s.t.Service }

// stack is the stack that has the service, and the service's name in its file; "" for a
// service of no stack.
func (s *state) stack() (stack, name string) {
	stack = s.Spec.Labels[stackLabel]
	return stack, strings.TrimPrefix(s.Spec.Name, stack+"_")
}

func (s *state) container() containerSpec { return s.Spec.TaskTemplate.ContainerSpec }

func filtered(path string, filters map[string][]string) string {
	raw, _ := json.Marshal(filters) // a mapping of strings
	return path + "filters=" + url.QueryEscape(string(raw))
}

// read looks at the service.
func (c *Client) read(ctx context.Context, t *alerts.SwarmTarget) (*state, error) {
	if t == nil {
		return nil, errNoTarget
	}
	var list []service
	err := c.do(ctx, http.MethodGet, filtered("/services?status=true&", map[string][]string{"name": {t.Service}}), nil, &list)
	if jsonhttp.Answered(err) == http.StatusServiceUnavailable {
		err = hint.Add(err, "docker: {host: ...} in the configuration file with the address of a manager")
	}
	if err != nil {
		return nil, fmt.Errorf("look at service %s: %w", t.Service, err)
	}
	for _, s := range list { // the filter takes what a name begins with
		if err := json.Unmarshal(s.Raw, &s.Spec); err != nil {
			return nil, fmt.Errorf("look at service %s: %w", t.Service, err)
		}
		switch {
		case s.Spec.Name != t.Service:
		case s.ServiceStatus == nil:
			return nil, hint.Add(fmt.Errorf("look at service %s: the Docker engine does not count its tasks", t.Service), "Docker 20.10 or newer on the managers")
		default:
			return &state{*t, s}, nil
		}
	}
	return nil, hint.Add(fmt.Errorf("look at service %s: the Swarm has no such service", t.Service), "docker service ls, and target: {swarm: {service: ...}}")
}

// refuse says why the service cannot be changed, or changing it would roll nothing out.
func (s *state) refuse() error {
	switch {
	case s.Spec.Mode.ReplicatedJob != nil, s.Spec.Mode.GlobalJob != nil:
		return hint.Add(fmt.Errorf("%s is a job: an update would run it again", s), "name a replicated or global service")
	case s.ServiceStatus.DesiredTasks == 0:
		return hint.Add(fmt.Errorf("%s is scaled to 0: no task of it runs", s), "docker service scale %s=1", s.t.Service)
	}
	return nil
}

// marks are the operations of a service, by field.
func (s *state) marks() map[string]string {
	all := map[string]string{}
	if err := json.Unmarshal([]byte(s.Spec.Labels[markLabel]), &all); err != nil {
		return map[string]string{} // nobody else's label to begin with
	}
	return all
}

// object is a part of a spec as JSON has it: all that is not known here stays in it.
type object = map[string]any

// in returns the mapping below a key, and makes it if there is none.
func in(o object, key string) object {
	m, ok := o[key].(object)
	if !ok {
		m = object{}
		o[key] = m
	}
	return m
}

func containerIn(o object) object { return in(in(o, "TaskTemplate"), "ContainerSpec") }

// errUnchanged marks an update that would change nothing. It is never sent.
var errUnchanged = errors.New("the update changes nothing")

// update sends the spec with what edit changes, and field's mark; op "" takes the mark
// away. An answer of 500 may mean that the service has another version by now.
func (c *Client) update(ctx context.Context, s *state, field, op string, edit func(spec object)) error {
	var before, after object
	for _, o := range []*object{&before, &after} {
		d := json.NewDecoder(strings.NewReader(string(s.Raw)))
		d.UseNumber()
		if err := d.Decode(o); err != nil {
			return fmt.Errorf("update %s: %w", s, err)
		}
	}
	delete(in(after, "Labels"), unstuckLabel) // of an earlier update
	edit(after)
	all := s.marks()
	was := maps.Clone(all)
	if all[field] = op; op == "" {
		delete(all, field)
	}
	switch labels := in(after, "Labels"); {
	case maps.Equal(all, was):
	case len(all) == 0:
		delete(labels, markLabel)
	default:
		raw, _ := json.Marshal(all) // a mapping of strings
		labels[markLabel] = string(raw)
	}
	if reflect.DeepEqual(before, after) {
		return fmt.Errorf("update %s: %w", s, errUnchanged)
	}
	path := fmt.Sprintf("/services/%s/update?version=%d", s.ID, s.Version.Index)
	if err := c.do(ctx, http.MethodPost, path, after, nil); err != nil {
		return fmt.Errorf("update %s: %w", s, err)
	}
	return nil
}

// tasks are those of a service, by what became of them.
type tasks struct {
	// wanted are to run, by name; failed are those that Swarm keeps, the newest first.
	wanted, failed []task
	// next are to run once Swarm starts them: after the delay of a restart, or as the next step of an update.
	next []task
	// lost were replaced before they ran: the node that they were given to may be down.
	lost []task
	// queued: one of the others has no node yet.
	queued bool
}

// tasks looks at the service's tasks.
func (c *Client) tasks(ctx context.Context, s *state) (all tasks, err error) {
	var list []task
	if err := c.do(ctx, http.MethodGet, filtered("/tasks?", map[string][]string{"service": {s.ID}}), nil, &list); err != nil {
		return all, fmt.Errorf("look at the tasks of %s: %w", s, err)
	}
	for _, t := range list {
		state := t.Status.State
		all.queued = all.queued || t.DesiredState != "shutdown" && (state == "new" || state == "pending")
		switch {
		case t.DesiredState == "running":
			all.wanted = append(all.wanted, t)
		case state == "failed" || state == "rejected":
			all.failed = append(all.failed, t)
		case t.DesiredState == "ready":
			all.next = append(all.next, t)
		case t.DesiredState == "shutdown" && t.NodeID != "" && slices.Contains([]string{"assigned", "accepted", "preparing", "ready", "starting"}, state):
			all.lost = append(all.lost, t)
		}
	}
	slices.SortFunc(all.wanted, func(a, b task) int { return strings.Compare(a.name(s), b.name(s)) })
	slices.SortFunc(all.failed, func(a, b task) int { return b.Status.Timestamp.Compare(a.Status.Timestamp) })
	return all, nil
}

// name is a task's as docker service ps has it.
func (t task) name(s *state) string {
	if t.Slot == 0 {
		return s.t.Service + "." + t.NodeID
	}
	return s.t.Service + "." + strconv.Itoa(t.Slot)
}

func (t task) running() bool { return t.Status.State == "running" }

// why says what a task that does not run waits for.
func (t task) why() string {
	if t.Status.Err != "" {
		return t.Status.State + ": " + t.Status.Err
	}
	return t.Status.State + ": " + t.Status.Message
}

// address is where a task is asked: at its node's address if the port is published there
// (mode: host) or the task has the node's network, else at its own in an overlay network.
func (c *Client) address(ctx context.Context, target alerts.Target, t task) (string, error) {
	port, err := strconv.Atoi(target.Probe.Port)
	if err != nil {
		return "", fmt.Errorf("probe.port: %w", err)
	}
	at := 0
	for _, p := range t.Status.PortStatus.Ports {
		if p.TargetPort == port && p.PublishMode == "host" && p.Protocol == "tcp" {
			at = p.PublishedPort
		}
	}
	own := ""
	for _, a := range t.NetworksAttachments {
		switch network := a.Network.Spec; {
		case network.DriverConfiguration.Name == "host" && at == 0:
			at = port
		case !network.Ingress && len(a.Addresses) > 0 && own == "":
			own, _, _ = strings.Cut(a.Addresses[0], "/")
		}
	}
	switch {
	case at != 0:
		n, err := c.node(ctx, t.NodeID)
		if err != nil {
			return "", err
		}
		host, err := n.address()
		return "http://" + net.JoinHostPort(host, strconv.Itoa(at)), err
	case own != "":
		return "http://" + net.JoinHostPort(own, target.Probe.Port), nil
	}
	return "", hint.Add(fmt.Errorf("port %d cannot be asked: it is not published on the task's node, and the task is in no network of its own", port),
		"ports: [{target: %d, mode: host}] in the stack file, or a network that backout is in", port)
}

// node looks at a node.
func (c *Client) node(ctx context.Context, id string) (n node, err error) {
	if err = c.do(ctx, http.MethodGet, "/nodes/"+url.PathEscape(id), nil, &n); err != nil {
		err = fmt.Errorf("look at node %s: %w", id, err)
	}
	return n, err
}

// address is the node's.
func (n node) address() (string, error) {
	if ip := net.ParseIP(n.Status.Addr); ip == nil || ip.IsUnspecified() { // a manager may not know its own
		host, _, err := net.SplitHostPort(n.ManagerStatus.Addr)
		return host, err
	}
	return n.Status.Addr, nil
}
