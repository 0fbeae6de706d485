package fleet

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strconv"
	"syscall"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"

	"github.com/locotoki/backout/remediation/docker/compose"
	"github.com/locotoki/backout/remediation/probe"
)

// ownAddress leads an address of the service on this machine to one replica: by the
// port that this replica publishes, of a range too, or, of several replicas, by its
// address on its network where that can be reached from here. What lies behind a
// proxy stays as it is.
func (c *Engine) ownAddress(ctx context.Context, address string, r *Replica, peers []*Replica) string {
	u, err := url.Parse(address)
	if address == "" || err != nil {
		return address
	}
	several := slices.ContainsFunc(peers, func(p *Replica) bool {
		return p.Label(LabelReplaces) != r.ID && p.ID != r.ID && r.Label(LabelReplaces) != p.ID
	})
	port, inner := portOf(u), ""
	for _, p := range append([]*Replica{r}, peers...) {
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
	if ip == "" || !Reachable(ctx, "http://"+net.JoinHostPort(ip, inner)) {
		return address
	}
	u.Host = net.JoinHostPort(ip, inner)
	return u.String()
}

// ours reports whether a host is the engine's machine: a load balancer may have the
// same port.
func (c *Engine) ours(ctx context.Context, host string) bool {
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
func (r *Replica) calledAs(host string) bool {
	if r.NetworkSettings == nil {
		return false
	}
	for _, e := range r.NetworkSettings.Networks {
		if e != nil && (slices.Contains(e.Aliases, host) || slices.Contains(e.DNSNames, host)) {
			return true
		}
	}
	return host == r.Label(compose.LabelService)
}

// published is the machine's port that leads to a port of a running replica: like,
// where that is one of several, or "" where there is none.
func (r *Replica) published(inner, like string) string {
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

// Reachable reports whether an address's host answers at all: to refuse is an answer.
func Reachable(ctx context.Context, address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	conn, err := (&net.Dialer{Timeout: probe.Attempt}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	return conn.Close() == nil
}

// behind is the container's port that is published as port, alone or in a range of
// which the engine picks one; "" where none is.
func behind(port string, like *Replica) string {
	sources := []nat.PortMap{like.HostConfig.PortBindings}
	if like.NetworkSettings != nil {
		sources = append(sources, like.NetworkSettings.Ports)
	}
	ranged := ""
	for _, ports := range sources {
		for inner, bindings := range ports {
			for _, b := range bindings {
				switch {
				case inner.Proto() != "tcp":
				case b.HostPort == port:
					return inner.Port()
				case inRange(b.HostPort, port):
					ranged = inner.Port()
				}
			}
		}
	}
	return ranged
}

// inRange reports whether a port is in a range such as 8000-8009.
func inRange(ports, port string) bool {
	n, perr := strconv.ParseUint(port, 10, 16)
	from, to, err := nat.ParsePortRangeToInt(ports)
	return perr == nil && err == nil && int(n) >= from && int(n) <= to
}

// addressOf is a started container's address on its first network.
func addressOf(in container.InspectResponse) string {
	if in.NetworkSettings == nil {
		return ""
	}
	if e := in.NetworkSettings.Networks[string(in.HostConfig.NetworkMode)]; e != nil && e.IPAddress != "" {
		return e.IPAddress
	}
	for _, e := range in.NetworkSettings.Networks {
		if e != nil && e.IPAddress != "" {
			return e.IPAddress
		}
	}
	return ""
}

// Translate leads an address of the service to a container that is like one of its
// own: a published port to the port behind it, on the container's own address. Where
// that is unknown, it is "", and the address is added to not.
func Translate(address string, like *Replica, in container.InspectResponse, not *[]string) string {
	if address == "" {
		return ""
	}
	u, err := url.Parse(address)
	ip := addressOf(in)
	if err != nil || ip == "" {
		*not = append(*not, address)
		return ""
	}
	port := portOf(u)
	inner := behind(port, like)
	if loopback := net.ParseIP(u.Hostname()).IsLoopback() || u.Hostname() == "localhost"; inner == "" && !loopback {
		inner = port // the service's own name: the port is the container's
	}
	if inner == "" {
		*not = append(*not, address)
		return ""
	}
	u.Host = net.JoinHostPort(ip, inner)
	return u.String()
}
