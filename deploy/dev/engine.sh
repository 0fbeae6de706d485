#!/usr/bin/env bash
# A Docker engine for the tests and the demo.
#
#   engine.sh start        make sure that an engine answers, and print its DOCKER_HOST; it stays until stop
#   engine.sh stop         stop the private engine of this checkout, if it runs; another engine is never touched
#   engine.sh status       print DOCKER_HOST and exit 0 if an engine answers, else exit 1
#   engine.sh env          print shell lines that set DOCKER_HOST and PATH, for eval
#   engine.sh with CMD...  run a command with DOCKER_HOST and PATH set; then stop the engine if
#                          it was started for this and nobody else uses it
#
# An engine that answers at DOCKER_HOST or at /var/run/docker.sock is used. Otherwise a private dockerd is started, whose
# data, sockets and pid file are in .cache/engine. It has its own bridge and addresses, and leaves the firewall and the
# sysctls of the machine alone (--iptables=false): containers reach each other, and the machine reaches them through
# their published ports, but they do not reach the internet. stop removes its bridges and mounts.
#
# Calls may run side by side: start and stop take .cache/engine.lock, `with` holds .cache/engine.users shared.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=$project/.cache
home=$cache/engine
id=$(printf '%s' "$project" | cksum | cut -d' ' -f1)
bridge=backout$((id % 100000000)) # at most 15 characters

# The longest socket below the run folder is exec/containerd/containerd-debug.sock, and a socket's path ends at 107 bytes.
run=$home/run
if [ ${#run} -gt 65 ]; then run=/run/backout-$id; fi
socket=$run/docker.sock
pidfile=$home/dockerd.pid
system=unix:///var/run/docker.sock

say() { printf 'engine: %s\n' "$*" >&2; }
die() {
  printf 'engine: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 1
}

# A client on PATH that is newer or older than the engine negotiates; the tools' own is preferred.
client() { PATH=$cache/bin:$PATH command docker "$@"; }
answers() { timeout 10 env PATH="$cache/bin:$PATH" docker -H "$1" version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# ours prints the pid of this checkout's dockerd: the pid file alone proves nothing, a pid may have been used again.
ours() {
  local pid
  pid=$(cat "$pidfile" 2>/dev/null) || return 1
  [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] || return 1
  tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF -- "--pidfile=$pidfile" || return 1
  printf '%s' "$pid"
}

# find prints the address of an engine that answers.
find_engine() {
  if [ -n "${DOCKER_HOST:-}" ] && answers "$DOCKER_HOST"; then
    printf '%s\n' "$DOCKER_HOST"
  elif ours >/dev/null && answers "unix://$socket"; then
    printf 'unix://%s\n' "$socket"
  elif [ -S /var/run/docker.sock ] && answers "$system"; then
    printf '%s\n' "$system"
  else
    return 1
  fi
}

# free_network prints the first two numbers of a /16 that no route of the machine lies in.
free_network() {
  local n routes
  routes=$(ip -4 route show table all)
  for n in $(seq 0 49); do
    n=$((200 + (id + n) % 50))
    if ! grep -qE "(^|[^0-9.])10\.$n\." <<<"$routes"; then
      printf '10.%d' "$n"
      return
    fi
  done
  die "no free address range between 10.200.0.0 and 10.249.0.0 for the private engine" "try: ip -4 route"
}

start_private() {
  local network pid
  [ "$(id -u)" = 0 ] || die "no Docker engine answers, and starting a private one needs root" \
    "try: run this as root, or start an engine and set DOCKER_HOST."
  if [ -e "$cache/engine.env" ]; then
    # shellcheck disable=SC1091
    . "$cache/engine.env"
  fi
  for program in dockerd containerd ip; do
    command -v "$program" >/dev/null || die "no Docker engine answers, and $program, needed to start a private one, is missing" \
      "try: deploy/dev/tools.sh (Debian), or start an engine and set DOCKER_HOST."
  done
  clean_up
  network=$(free_network)
  mkdir -p "$home" "$run"
  chmod 700 "$run"
  echo '{}' >"$home/daemon.json" # so that the machine's own /etc/docker/daemon.json is not read
  ip link add name "$bridge" type bridge || die "cannot create the bridge $bridge" \
    "try: this needs root with the right to change the network (a container needs --privileged)."
  ip addr add "$network.0.1/24" dev "$bridge"
  ip link set "$bridge" up
  say "no engine answers: starting a private dockerd (data in .cache/engine, socket $socket)"
  # It starts itself anew for each container, which takes a quarter less CPU where it collects less. It may outlive the
  # command that it is started for, and so that command's folder for temporary files.
  env -u TMPDIR GOGC=400 setsid dockerd --host="unix://$socket" --data-root="$home/data" --exec-root="$run/exec" --pidfile="$pidfile" \
    --bridge="$bridge" --default-address-pool="base=$network.128.0/17,size=24" \
    --iptables=false --ip-forward=false --ip-masq=false --config-file="$home/daemon.json" \
    --shutdown-timeout=10 >"$home/dockerd.log" 2>&1 </dev/null 8>&- 9>&- &
  pid=$!
  for _ in $(seq 300); do
    if ! kill -0 "$pid" 2>/dev/null; then break; fi
    if answers "unix://$socket"; then
      say "ready, pid $pid"
      return
    fi
    sleep 0.2
  done
  tail -n 8 "$home/dockerd.log" >&2
  if kill "$pid" 2>/dev/null; then wait "$pid" || true; fi
  clean_up
  die "dockerd did not start; the lines above are the end of $home/dockerd.log" \
    "try: a container needs --privileged for this; or start an engine elsewhere and set DOCKER_HOST."
}

# clean_up removes what a stopped dockerd leaves in the kernel: mounts below our folders, and our bridges.
clean_up() {
  local path name
  ! ours >/dev/null || return 0
  while read -r path; do umount "$path" 2>/dev/null || umount -l "$path" || true; done < <(
    cut -d' ' -f5 /proc/self/mountinfo | grep -F -e "$home/" -e "$run/" | sort -r)
  if [ -e "$home/bridges" ]; then
    while read -r name; do ip link del "$name" 2>/dev/null || true; done <"$home/bridges"
    rm -f "$home/bridges"
  fi
  if [ -e "/sys/class/net/$bridge" ]; then ip link del "$bridge"; fi
  rm -rf "$run" "$pidfile"
  # dockerd and its shims make these whatever the exec-root is; another engine's are not empty.
  rmdir /run/containerd/s /run/containerd 2>/dev/null || true
  if [ ! -e /run/docker.sock ]; then rmdir /run/docker/plugins /run/docker 2>/dev/null || true; fi
}

stop_private() {
  local pid
  if [ -e "$cache/engine.env" ]; then
    # shellcheck disable=SC1091
    . "$cache/engine.env"
  fi
  rm -f "$home/keep"
  if ! pid=$(ours); then
    [ ! -e "$home" ] || [ "$(id -u)" != 0 ] || clean_up
    return 0
  fi
  # The engine leaves the bridges of its networks behind when it ends.
  client -H "unix://$socket" network ls --quiet --filter driver=bridge 2>/dev/null | sed 's/^/br-/' >"$home/bridges" || true
  kill "$pid"
  for _ in $(seq 300); do
    if ! kill -0 "$pid" 2>/dev/null; then break; fi
    sleep 0.1
  done
  if kill -0 "$pid" 2>/dev/null; then
    say "dockerd ($pid) did not stop within 30s, killing it"
    kill -KILL "$pid"
  fi
  clean_up
  say "private engine stopped"
}

# locked runs one of the functions above exclusively.
locked() {
  mkdir -p "$cache"
  exec 9>"$cache/engine.lock"
  flock 9
  "$@"
  exec 9>&-
}

start() {
  host=$(find_engine) && return
  start_private
  host=unix://$socket
}

keep() {
  start
  if [ "$host" = "unix://$socket" ]; then : >"$home/keep"; fi
}

# leave is the end of `with`: the engine stays if somebody asked it to, or if another `with` is running.
leave() {
  exec 8>&-
  exec 8>"$cache/engine.users"
  if [ ! -e "$home/keep" ] && flock --nonblock --exclusive 8; then stop_private 2>/dev/null; fi
}

# The command runs in a process group of its own, so that a signal reaches all of it, and no part of it is left behind.
with() {
  local status=0 child
  locked enter
  trap 'locked leave' EXIT
  set -m
  DOCKER_HOST=$host PATH=$cache/bin:$PATH "$@" <&0 8>&- 9>&- &
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
}

enter() {
  exec 8>"$cache/engine.users"
  flock --shared 8
  start
}

host=
case "${1:-}" in
start)
  locked keep
  printf '%s\n' "$host"
  ;;
stop) locked stop_private ;;
status) find_engine || { say "no engine answers" && exit 1; } ;;
env)
  host=$(find_engine) || die "no engine answers" "try: deploy/dev/engine.sh start"
  # shellcheck disable=SC2016
  printf 'export DOCKER_HOST=%q\nexport PATH=%q:"$PATH"\n' "$host" "$cache/bin"
  ;;
with)
  shift
  [ $# -gt 0 ] || die "with needs a command"
  with "$@"
  ;;
*) die "usage: deploy/dev/engine.sh start | stop | status | env | with COMMAND..." ;;
esac
