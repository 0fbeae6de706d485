package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"github.com/locotoki/backout/alerts"
)

const (
	// probeAttempt bounds one request, probeEvery is the distance of two.
	probeAttempt = 2 * time.Second
	probeEvery   = 50 * time.Millisecond
	// probeTimeout is used where the playbook has none.
	probeTimeout = 30 * time.Second
	// aloneTimeout is how long a container must stay up that nothing can ask.
	aloneTimeout = 2 * time.Second
)

// check is what a replica must show before it counts as working. Its addresses
// are the service's; each replica is asked by its own where that can be told.
type check struct {
	health, flags, version string
	timeout                time.Duration
	flag                   string
	value                  setting // what flags must list for flag, if it is set
	wants                  string  // what version must name, if it is not ""
	peers                  []*replica
	// also is asked once the service is healthy; nil: nothing.
	also func(context.Context) error
}

func checkOf(p alerts.Probe, flag string, value setting) check {
	timeout := time.Duration(p.Timeout)
	if timeout <= 0 {
		timeout = probeTimeout
	}
	return check{health: p.Health, flags: p.Flags, version: p.Version, timeout: timeout, flag: flag, value: value}
}

// errBroken marks what waiting does not cure.
var errBroken = errors.New("container does not stay up")

// works waits until a started container is seen to work: up without a restart,
// healthy by its own healthcheck where that answers in time, and by the probe's
// addresses.
func (c *Client) works(ctx context.Context, id string, k check) error {
	deadline, cancel := context.WithTimeoutCause(ctx, k.timeout, fmt.Errorf("within %s", k.timeout))
	defer cancel()
	started := time.Now()
	var last error
	name := id
	for {
		in, err := c.api.ContainerInspect(deadline, id)
		switch {
		case err != nil && deadline.Err() == nil:
			return fmt.Errorf("inspect container %s: %w", name, err)
		case err == nil:
			name = (&replica{in}).name()
			ready, err := settled(in, started, k)
			if errors.Is(err, errBroken) {
				return err
			}
			if ready && err == nil {
				if err = c.answers(deadline, c.of(ctx, k, &replica{in})); err == nil {
					return nil
				}
			}
			if last == nil || deadline.Err() == nil { // what was said before the end says more
				last = err
			}
		}
		if !wait(deadline, probeEvery) {
			if ctx.Err() != nil {
				return fmt.Errorf("wait for container %s: %w", name, ctx.Err())
			}
			// As text: an address that does not answer leaves no doubt about the engine.
			return fmt.Errorf("container %s does not work %w: %s", name, context.Cause(deadline), text(last))
		}
	}
}

func text(err error) string {
	if err == nil {
		return "the engine did not answer in time"
	}
	return err.Error()
}

// settled judges a container by the engine's word on it.
func settled(in container.InspectResponse, since time.Time, k check) (ready bool, err error) {
	name := strings.TrimPrefix(in.Name, "/")
	switch s := in.State; {
	case in.RestartCount > 0 || s.Restarting:
		return false, fmt.Errorf("%w: %s was restarted %d times (last exit status %d)", errBroken, name, in.RestartCount, s.ExitCode)
	case !s.Running:
		return false, fmt.Errorf("%w: %s is %s (exit status %d)", errBroken, name, s.Status, s.ExitCode)
	case s.Health == nil || s.Health.Status == container.NoHealthcheck:
		if k.health == "" && time.Since(since) < aloneTimeout {
			return false, fmt.Errorf("%s has no health address; it must stay up for %s", name, aloneTimeout)
		}
	case s.Health.Status == container.Unhealthy:
		return false, fmt.Errorf("%w: %s is unhealthy according to its healthcheck", errBroken, name)
	case s.Health.Status == container.Starting:
		// A first verdict that cannot come in time is not waited for, if the
		// service can be asked otherwise.
		if h := in.Config.Healthcheck; k.health != "" && h != nil && h.Interval+h.StartPeriod >= k.timeout {
			return true, nil
		}
		return false, fmt.Errorf("the healthcheck of %s has not answered", name)
	}
	return true, nil
}

// answers asks the probe's addresses once.
func (c *Client) answers(ctx context.Context, k check) error {
	if k.health != "" {
		if _, err := c.get(ctx, k.health); err != nil {
			return fmt.Errorf("health: %w", err)
		}
	}
	if k.version != "" && k.wants != "" {
		if err := c.namesVersion(ctx, k.version, k.wants); err != nil {
			return fmt.Errorf("%s: %w", checkVersion, err)
		}
	}
	if k.also != nil {
		if err := k.also(ctx); err != nil {
			return err
		}
	}
	if k.flags == "" || !k.value.set {
		return nil
	}
	flags, err := c.servedFlags(ctx, k.flags)
	if err != nil {
		return fmt.Errorf("flags: %w", err)
	}
	got, ok := flags[k.flag]
	if !ok {
		return otherwise{fmt.Errorf("flags: %s does not list %s", k.flags, k.flag)}
	}
	if same := strings.EqualFold(got, k.value.value) || off(got) && off(k.value.value); !same {
		return otherwise{fmt.Errorf("flags: %s serves %s=%s, want %s", k.flags, k.flag, got, k.value.value)}
	}
	return nil
}

// denies asks each replica once what it serves, and returns the answer that is not as
// wanted. No answer denies nothing.
func (c *Client) denies(ctx context.Context, f *fleet, k check) error {
	k.peers, k.health, k.also = f.replicas, "", nil
	for _, r := range f.members() {
		if !r.running() {
			continue
		}
		if err := c.answers(ctx, c.of(ctx, k, r)); errors.Is(err, errOtherwise) {
			return fmt.Errorf("container %s: %w", r.name(), err)
		}
	}
	return nil
}

// errOtherwise marks a service's own word that it is not as wanted.
var errOtherwise = errors.New("the service reports another state")

// otherwise words an answer that is not as wanted.
type otherwise struct{ error }

func (otherwise) Is(target error) bool { return target == errOtherwise }

// servedFlags asks a service which flags it serves: a JSON object of them.
func (c *Client) servedFlags(ctx context.Context, address string) (map[string]string, error) {
	body, err := c.get(ctx, address)
	if err != nil {
		return nil, err
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, fmt.Errorf("%s: not a JSON object of flags: %w", address, err)
	}
	flags := make(map[string]string, len(raw))
	for name, v := range raw {
		flags[name] = flagText(v)
	}
	return flags, nil
}

// of returns the check with the addresses of one replica.
func (c *Client) of(ctx context.Context, k check, r *replica) check {
	for _, address := range []*string{&k.health, &k.flags, &k.version} {
		*address = c.ownAddress(ctx, *address, r, k.peers)
	}
	return k
}

// ownAddress leads an address of the service on this machine to one replica: by the
// port that this replica publishes, of a range too, or, of several replicas, by its
// address on its network where that can be reached from here. What lies behind a
// proxy stays as it is.
func (c *Client) ownAddress(ctx context.Context, address string, r *replica, peers []*replica) string {
	u, err := url.Parse(address)
	if address == "" || err != nil {
		return address
	}
	several := slices.ContainsFunc(peers, func(p *replica) bool {
		return p.label(labelReplaces) != r.ID && p.ID != r.ID && r.label(labelReplaces) != p.ID
	})
	port, inner := portOf(u), ""
	for _, p := range append([]*replica{r}, peers...) {
		if inner == "" {
			inner = behind(port, p)
		}
	}
	switch {
	case inner == "" && several && r.calledAs(u.Hostname()):
		inner = port
	case inner == "", !several && !c.ours(ctx, u.Hostname()):
		return address
	default:
		if published := r.published(inner, port); published != "" && c.ours(ctx, u.Hostname()) {
			u.Host = net.JoinHostPort(u.Hostname(), published)
			return u.String()
		}
	}
	if !several {
		return address
	}
	ip := addressOf(r.InspectResponse)
	if ip == "" || !reachable(ctx, "http://"+net.JoinHostPort(ip, inner)) {
		return address
	}
	u.Host = net.JoinHostPort(ip, inner)
	return u.String()
}

// ours reports whether a host is the engine's machine: a load balancer may have the
// same port.
func (c *Client) ours(ctx context.Context, host string) bool {
	if u, err := client.ParseHostURL(c.host); err == nil && u.Scheme != "unix" {
		if engine, _, err := net.SplitHostPort(u.Host); err == nil && engine == host {
			return true
		}
	}
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
	if err != nil {
		return false
	}
	own, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(ips, func(ip net.IP) bool {
		return ip.IsLoopback() || slices.ContainsFunc(own, func(a net.Addr) bool {
			n, ok := a.(*net.IPNet)
			return ok && n.IP.Equal(ip)
		})
	})
}

// calledAs reports whether a host name is one of the replica's on its networks.
func (r *replica) calledAs(host string) bool {
	if r.NetworkSettings == nil {
		return false
	}
	for _, e := range r.NetworkSettings.Networks {
		if e != nil && (slices.Contains(e.Aliases, host) || slices.Contains(e.DNSNames, host)) {
			return true
		}
	}
	return host == r.label(labelService)
}

// published is the machine's port that leads to a port of a running replica: like,
// where that is one of several, or "" where there is none.
func (r *replica) published(inner, like string) string {
	found := ""
	if r.NetworkSettings == nil {
		return found
	}
	for port, bindings := range r.NetworkSettings.Ports {
		for _, b := range bindings {
			if port.Proto() == "tcp" && port.Port() == inner && (found == "" || b.HostPort == like) {
				found = b.HostPort
			}
		}
	}
	return found
}

func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

// flagText is a JSON scalar as an environment variable would have it.
func flagText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}

// off tells the usual spellings of off: a service may parse its variable and
// serve what it understood.
func off(s string) bool {
	switch strings.ToLower(s) {
	case "0", "false", "off", "no", "":
		return true
	}
	return false
}

// get returns what an address answers, if the answer is good.
func (c *Client) get(ctx context.Context, url string) ([]byte, error) {
	status, body, err := c.request(ctx, url)
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("%s answers %d %s", url, status, http.StatusText(status))
	}
	return body, err
}

// request returns an answer's status and its first MiB. It follows no redirection.
func (c *Client) request(ctx context.Context, url string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := c.probe.Do(req)
	if err != nil {
		return 0, nil, err
	}
	body, err = io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, body, errors.Join(err, res.Body.Close())
}
