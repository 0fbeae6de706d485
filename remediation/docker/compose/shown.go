package compose

import (
	"slices"
	"strings"
)

// shownKeys are the keys of a service whose whole effect on a container an inspect
// shows, so that a copy has it too. docker's TestEachShownKeySurvivesACopy holds each of
// them (testdata/shown-keys.yaml) against the real engine and the real compose. A key that is not here is the compose
// tool's business.
var shownKeys = strings.Fields(`
	blkio_config cap_add cap_drop cgroup_parent command container_name cpu_period cpu_quota cpu_shares cpus cpuset
	device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint environment env_file expose extra_hosts
	group_add healthcheck hostname image init ipc labels label_file logging mac_address mem_limit mem_reservation
	mem_swappiness memswap_limit network_mode networks oom_kill_disable oom_score_adj pid pids_limit ports privileged
	read_only restart runtime security_opt shm_size stdin_open stop_grace_period stop_signal sysctls tmpfs tty ulimits
	user userns_mode uts volumes working_dir`)

// asideKeys do not describe a container: what it is built from, when compose starts it,
// and how many there are. The image and the replicas are there.
var asideKeys = strings.Fields(`attach build depends_on develop extends platform profiles pull_policy scale`)

// Hidden returns the keys of a service that a copy of its container would lack.
func (d Definition) Hidden() []string {
	var all []string
	set, err := d.keys()
	if err != nil {
		return []string{"a key that cannot be encoded"}
	}
	for key := range set {
		switch {
		case slices.Contains(shownKeys, key), slices.Contains(asideKeys, key):
		case key == "configs":
			for _, c := range d.Spec.Configs {
				if d.Configs[c.Source].File == "" {
					all = append(all, "configs: "+c.Source+" (without a file)")
				}
			}
		case key == "secrets":
			for _, s := range d.Spec.Secrets {
				if d.Secrets[s.Source].File == "" {
					all = append(all, "secrets: "+s.Source+" (without a file)")
				}
			}
		case key == "deploy":
			if r := d.Spec.Deploy.Resources.Reservations; r != nil && (len(r.Devices) > 0 || len(r.GenericResources) > 0) {
				all = append(all, "deploy: resources: reservations: devices")
			}
		default:
			all = append(all, key)
		}
	}
	for _, shared := range []struct{ key, with string }{{"network_mode", d.Spec.NetworkMode}, {"ipc", d.Spec.Ipc}, {"pid", d.Spec.Pid}} {
		if strings.HasPrefix(shared.with, "service:") {
			all = append(all, shared.key+": "+shared.with)
		}
	}
	for name, n := range d.Spec.Networks {
		if n != nil && n.MacAddress != "" {
			all = append(all, "networks: "+name+": mac_address")
		}
	}
	slices.Sort(all)
	return all
}

// Restarted returns the services that compose restarts whenever it recreates this one
// (depends_on: {..: {restart: true}}).
func (d Definition) Restarted() []string {
	var all []string
	for name, s := range d.others {
		if s.DependsOn[d.Spec.Name].Restart {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}
