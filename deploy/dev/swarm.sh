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

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=$project/.cache
id=$(printf '%s' "$project" | cksum | cut -d' ' -f1)
home=/run/backout-swarm-$id # short: a socket's path ends at 107 bytes
name=bosw$((id % 100000000)) # of the bridge, the links and the namespaces: at most 13 characters

say() { printf 'swarm: %s\n' "$*" >&2; }
die() {
  printf 'swarm: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 1
}

node() {
  local n=$1
  shift
  PATH=$cache/bin:$PATH docker -H "unix://$home/$n/docker.sock" "$@"
}

# pid_of prints the pid of a node's dockerd: the pid file alone proves nothing, a pid may have been used again.
pid_of() {
  local pid
  pid=$(cat "$home/$1/dockerd.pid" 2>/dev/null) && [ -r "/proc/$pid/cmdline" ] || return 1
  tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF -- "--pidfile=$home/$1/dockerd.pid" || return 1
  printf '%s' "$pid"
}

# free_network prints the first two numbers of a /16 that no route of the machine lies in.
free_network() {
  local n routes
  routes=$(ip -4 route show table all)
  for n in $(seq 0 49); do
    n=$((150 + (id + n) % 50))
    if ! grep -qE "(^|[^0-9.])10\.$n\." <<<"$routes"; then
      printf '10.%d' "$n"
      return
    fi
  done
  die "no free address range between 10.150.0.0 and 10.199.0.0" "try: ip -4 route"
}

# launch starts the dockerd of a node in its namespace.
launch() {
  local n=$1
  ip netns add "$name.$n"
  ip link add "$name.$n" type veth peer name eth0 netns "$name.$n"
  ip link set "$name.$n" master "$name" up
  ip -n "$name.$n" link set lo up
  ip -n "$name.$n" addr add "$network.0.1$n/24" dev eth0
  ip -n "$name.$n" link set eth0 up
  mkdir -p "$home/$n"
  printf '%s' "$name.$n" >"$home/$n/link"
  echo '{}' >"$home/$n/daemon.json" # so that the machine's own /etc/docker/daemon.json is not read
  # Not by "ip netns exec", which hides the cgroups.
  setsid nsenter --net="/run/netns/$name.$n" dockerd --host="unix://$home/$n/docker.sock" --data-root="$data/$n" \
    --exec-root="$home/$n/exec" --pidfile="$home/$n/dockerd.pid" --bip="$network.10$n.1/24" \
    --default-address-pool="base=$network.12$n.0/24,size=26" --iptables=false --ip-forward=false --ip-masq=false \
    --config-file="$home/$n/daemon.json" --shutdown-timeout=5 >"$cache/swarm/$n.log" 2>&1 </dev/null 9>&- &
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
  local token room
  [ "$(id -u)" = 0 ] || die "two Docker engines need root" "try: run this as root."
  if [ -e "$cache/engine.env" ]; then
    # shellcheck disable=SC1091
    . "$cache/engine.env"
  fi
  for program in dockerd containerd ip nsenter; do
    command -v "$program" >/dev/null || die "$program is missing" "try: deploy/dev/tools.sh (Debian)"
  done
  mkdir -p "$home" "$cache/swarm"
  room=$(df --output=avail --block-size=1G /dev/shm 2>/dev/null | tail -n 1 | tr -d ' ')
  data=$cache/swarm/data
  if [ "${room:-0}" -ge 2 ] && [ -w /dev/shm ]; then data=/dev/shm/backout-swarm-$id; fi
  network=$(free_network)
  ip link add name "$name" type bridge
  ip addr add "$network.0.1/24" dev "$name"
  ip link set "$name" up
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
  local n pid path
  for n in 2 1; do
    if pid=$(pid_of "$n"); then kill "$pid"; fi
  done
  for n in 2 1; do
    for _ in $(seq 200); do
      if ! pid=$(pid_of "$n"); then break; fi
      sleep 0.1
    done
    if pid=$(pid_of "$n"); then
      say "dockerd ($pid) did not stop within 20s, killing it"
      kill -KILL "$pid"
    fi
  done
  while read -r path; do umount "$path" 2>/dev/null || umount -l "$path" || true; done < <(
    cut -d' ' -f5 /proc/self/mountinfo | grep -F -e "$home/" -e "/dev/shm/backout-swarm-$id/" -e "$cache/swarm/" | sort -r)
  for n in 1 2; do
    if [ -e "/sys/class/net/$name.$n" ]; then ip link del "$name.$n"; fi
    if [ -e "/run/netns/$name.$n" ]; then ip netns del "$name.$n"; fi
  done
  if [ -e "/sys/class/net/$name" ]; then ip link del "$name"; fi
  rm -rf "$home" "/dev/shm/backout-swarm-$id" "$cache/swarm/data"
  # dockerd and its shims make these whatever the exec-root is; another engine's are not empty.
  rmdir /run/containerd/s /run/containerd 2>/dev/null || true
  if [ ! -e /run/docker.sock ]; then rmdir /run/docker/plugins /run/docker 2>/dev/null || true; fi
}

[ "${1:-}" = with ] && [ $# -gt 1 ] || die "usage: deploy/dev/swarm.sh with COMMAND..."
shift
mkdir -p "$cache"
exec 9>"$cache/swarm.lock"
flock 9
stop # what a killed call left
trap stop EXIT
start
# The command runs in a process group of its own, so that a signal reaches all of it.
set -m
BACKOUT_SWARM=$home PATH=$cache/bin:$PATH "$@" <&0 9>&- &
child=$!
set +m
trap 'kill -INT -- "-$child" 2>/dev/null' INT
trap 'kill -TERM -- "-$child" 2>/dev/null' TERM HUP
while :; do
  status=0
  wait "$child" || status=$?
  kill -0 "$child" 2>/dev/null || break # a signal that came in between ends the wait, not the command
done
kill -TERM -- "-$child" 2>/dev/null || true
exit "$status"
