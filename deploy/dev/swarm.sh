#!/usr/bin/env bash
# A Docker Swarm of two nodes on this machine, for the tests.
#
#   swarm.sh with CMD...  start it, run a command with the variable below set, and stop it
#
#   BACKOUT_SWARM   a folder with 1/docker.sock, the manager's socket, and 2/docker.sock, a worker's; 2/link is the name
#                   of the worker's network link: ip link set NAME down makes the worker unreachable
#
# Each node is a private dockerd in a network namespace of its own, so that it has its own addresses and ports; the
# machine reaches it through a bridge. Nothing of it remains: the namespaces take the interfaces that Swarm makes
# (docker_gwbridge) with them. The firewall and the sysctls of the machine are left alone, and nothing in there reaches
# the internet. A node counts as down after three seconds of silence. Logs are in .cache/swarm.
#
# Calls in one checkout wait for each other, by .cache/swarm.lock.
set -euo pipefail

name=swarm
# shellcheck source=deploy/dev/private.sh
. "$(dirname "${BASH_SOURCE[0]}")/private.sh"
home=/run/backout-swarm-$id # short: a socket's path ends at 107 bytes
link=bosw$((id % 100000000)) # of the bridge, the links and the namespaces: at most 13 characters

node() {
  local n=$1
  shift
  docker -H "unix://$home/$n/docker.sock" "$@"
}

pid_of() { running "$home/$1/dockerd.pid" "--pidfile=$home/$1/dockerd.pid"; }

# launch starts the dockerd of a node in its namespace.
launch() {
  local n=$1
  ip netns add "$link.$n"
  ip link add "$link.$n" type veth peer name eth0 netns "$link.$n"
  ip link set "$link.$n" master "$link" up
  ip -n "$link.$n" link set lo up
  ip -n "$link.$n" addr add "$network.0.1$n/24" dev eth0
  ip -n "$link.$n" link set eth0 up
  mkdir -p "$home/$n"
  printf '%s' "$link.$n" >"$home/$n/link"
  echo '{}' >"$home/$n/daemon.json" # so that the machine's own /etc/docker/daemon.json is not read
  # Not by "ip netns exec", which hides the cgroups.
  : >"$cache/swarm/$n.log"
  background "$cache/swarm/$n.log" setsid nsenter --net="/run/netns/$link.$n" dockerd --host="unix://$home/$n/docker.sock" --data-root="$data/$n" \
    --exec-root="$home/$n/exec" --pidfile="$home/$n/dockerd.pid" --bip="$network.10$n.1/24" \
    --default-address-pool="base=$network.12$n.0/24,size=26" --iptables=false --ip-forward=false --ip-masq=false \
    --config-file="$home/$n/daemon.json" --shutdown-timeout=5
}

ready() {
  for _ in $(seq 300); do
    if node "$1" version >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  tail -n 8 "$cache/swarm/$1.log" >&2
  die "dockerd did not start; the lines above are the end of .cache/swarm/$1.log" "try: this needs root; a container needs --privileged."
}

start() {
  local token
  [ "$(id -u)" = 0 ] || die "two Docker engines need root" "try: run this as root."
  docker_path
  for program in dockerd containerd ip nsenter; do
    command -v "$program" >/dev/null || die "$program is missing" "try: deploy/dev/tools.sh (Debian)"
  done
  mkdir -p "$home" "$cache/swarm"
  data=$cache/swarm/data
  if has_ram 2; then data=/dev/shm/backout-swarm-$id; fi
  network=$(free_network 150)
  ip link add name "$link" type bridge
  ip addr add "$network.0.1/24" dev "$link"
  ip link set "$link" up
  launch 1
  launch 2
  ready 1
  ready 2
  node 1 swarm init --advertise-addr "$network.0.11" --listen-addr "$network.0.11:2377" >/dev/null
  node 1 swarm update --dispatcher-heartbeat 1s >/dev/null
  token=$(node 1 swarm join-token --quiet worker)
  node 2 swarm join --token "$token" --advertise-addr "$network.0.12" --listen-addr "$network.0.12:2377" "$network.0.11:2377" >/dev/null
  say "two nodes are ready: $network.0.11, $network.0.12"
}

# stop ends both nodes, and removes their mounts, namespaces and files. Of a swarm that is not there, nothing.
stop() {
  local n pid
  for n in 2 1; do
    if pid=$(pid_of "$n"); then kill "$pid" || true; fi
  done
  for n in 2 1; do
    if pid=$(pid_of "$n") && ! ended "$pid" 20; then
      say "dockerd ($pid) did not stop within 20s, killing it"
      kill -KILL "$pid" || true
    fi
  done
  unmount "$home/" "/dev/shm/backout-swarm-$id/" "$cache/swarm/"
  for n in 1 2; do
    if [ -e "/sys/class/net/$link.$n" ]; then ip link del "$link.$n"; fi
    if [ -e "/run/netns/$link.$n" ]; then ip netns del "$link.$n"; fi
  done
  if [ -e "/sys/class/net/$link" ]; then ip link del "$link"; fi
  rm -rf "$home" "/dev/shm/backout-swarm-$id" "$cache/swarm/data"
  forget_docker
}

[ "${1:-}" = with ] && [ $# -gt 1 ] || die "usage: deploy/dev/swarm.sh with COMMAND..."
shift
mkdir -p "$cache"
exec 9>"$cache/swarm.lock"
flock 9
stop # what a killed call left
trap stop EXIT
start
supervise "BACKOUT_SWARM=$home" "$@"
