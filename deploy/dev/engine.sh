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

name=engine what=engine
# shellcheck source=deploy/dev/private.sh
. "$(dirname "${BASH_SOURCE[0]}")/private.sh"
home=$cache/engine
bridge=backout$((id % 100000000)) # at most 15 characters

# The longest socket below the run folder is exec/containerd/containerd-debug.sock, and a socket's path ends at 107 bytes.
run=$home/run
if [ ${#run} -gt 65 ]; then run=/run/backout-$id; fi
socket=$run/docker.sock
pidfile=$home/dockerd.pid
system=unix:///var/run/docker.sock

answers() { timeout 10 docker -H "$1" version --format '{{.Server.Version}}' >/dev/null 2>&1; }
ours() { running "$pidfile" "--pidfile=$pidfile"; }

find_server() {
  if [ -n "${DOCKER_HOST:-}" ] && answers "$DOCKER_HOST"; then
    address=$DOCKER_HOST
  elif ours >/dev/null && answers "unix://$socket"; then
    address=unix://$socket
  elif [ -S /var/run/docker.sock ] && answers "$system"; then
    address=$system
  else
    return 1
  fi
  if [ "$address" = "unix://$socket" ]; then private=yes; fi
  settings=("DOCKER_HOST=$address")
}

start_private() {
  local network pid
  [ "$(id -u)" = 0 ] || die "no Docker engine answers, and starting a private one needs root" \
    "try: run this as root, or start an engine and set DOCKER_HOST."
  docker_path
  for program in dockerd containerd ip; do
    command -v "$program" >/dev/null || die "no Docker engine answers, and $program, needed to start a private one, is missing" \
      "try: deploy/dev/tools.sh (Debian), or start an engine and set DOCKER_HOST."
  done
  clean_up
  network=$(free_network 200)
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
  : >"$home/dockerd.log"
  background "$home/dockerd.log" env -u TMPDIR GOGC=400 setsid dockerd --host="unix://$socket" --data-root="$home/data" --exec-root="$run/exec" --pidfile="$pidfile" \
    --bridge="$bridge" --default-address-pool="base=$network.128.0/17,size=24" \
    --iptables=false --ip-forward=false --ip-masq=false --config-file="$home/daemon.json" \
    --shutdown-timeout=10
  pid=$!
  for _ in $(seq 300); do
    if ! kill -0 "$pid" 2>/dev/null; then break; fi
    if answers "unix://$socket"; then
      say "ready, pid $pid"
      find_server
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
  local each
  ! ours >/dev/null || return 0
  unmount "$home/" "$run/"
  if [ -e "$home/bridges" ]; then
    while read -r each; do ip link del "$each" 2>/dev/null || true; done <"$home/bridges"
    rm -f "$home/bridges"
  fi
  if [ -e "/sys/class/net/$bridge" ]; then ip link del "$bridge"; fi
  rm -rf "$run" "$pidfile"
  forget_docker
}

stop_private() {
  local pid
  if ! pid=$(ours); then
    [ ! -e "$home" ] || [ "$(id -u)" != 0 ] || clean_up
    return 0
  fi
  docker_path
  # The engine leaves the bridges of its networks behind when it ends.
  docker -H "unix://$socket" network ls --quiet --filter driver=bridge 2>/dev/null | sed 's/^/br-/' >"$home/bridges" || true
  kill "$pid" || true
  if ! ended "$pid" 30; then
    say "dockerd ($pid) did not stop within 30s, killing it"
    kill -KILL "$pid" || true
  fi
  clean_up
  say "private engine stopped"
}

shared "$@"
