package fleet

import (
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-connections/nat"
)

func TestAnAddressOfTheServiceLeadsToTheReplica(t *testing.T) {
	port := func(host string) []nat.PortBinding { return []nat.PortBinding{{HostIP: "127.0.0.1", HostPort: host}} }
	made := func(asked string, got ...nat.PortBinding) *Replica {
		shown := &container.NetworkSettings{}
		shown.Ports = nat.PortMap{"9000/tcp": got}
		return &Replica{container.InspectResponse{
			ContainerJSONBase: &container.ContainerJSONBase{ID: asked + got[0].HostPort, HostConfig: &container.HostConfig{PortBindings: nat.PortMap{"9000/tcp": port(asked)}}},
			Config:            &container.Config{},
			NetworkSettings:   shown,
		}}
	}
	first, second := made("8110-8119", port("8110")[0]), made("8110-8119", port("8113")[0])
	two := made("80", port("80")[0], port("8080")[0])
	for name, c := range map[string]struct {
		address string
		of      *Replica
		peers   []*Replica
		want    string
	}{
		"each of two by its own port":           {"http://127.0.0.1:8110/health", second, []*Replica{first, second}, "http://127.0.0.1:8113/health"},
		"a port of the range that nobody has":   {"http://127.0.0.1:8117/health", second, []*Replica{first, second}, "http://127.0.0.1:8113/health"},
		"one that came back elsewhere":          {"http://127.0.0.1:8110/health", second, []*Replica{second}, "http://127.0.0.1:8113/health"},
		"the one that was named of two":         {"http://127.0.0.1:8080/health", two, []*Replica{two}, "http://127.0.0.1:8080/health"},
		"a proxy's port":                        {"http://127.0.0.1:443/health", second, []*Replica{first, second}, "http://127.0.0.1:443/health"},
		"no address, where none is asked":       {"", second, []*Replica{first, second}, ""},
		"what is published outside of a range":  {"http://127.0.0.1:8120/health", second, []*Replica{first, second}, "http://127.0.0.1:8120/health"},
		"the scheme's own port, which it shows": {"http://127.0.0.1/health", two, []*Replica{two}, "http://127.0.0.1:80/health"},
		"another machine's":                     {"http://192.0.2.1:8110/health", second, []*Replica{second}, "http://192.0.2.1:8110/health"},
	} {
		if got := (&Engine{}).ownAddress(t.Context(), c.address, c.of, c.peers); got != c.want {
			t.Errorf("%s: %s leads to %s, want %s", name, c.address, got, c.want)
		}
	}
}
