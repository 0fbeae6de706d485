#!/usr/bin/env bash
# A Kubernetes API server with its controllers, for the tests and the demo.
#
#   kube.sh start        make sure that one answers, and print the path of its admin's kubeconfig; it stays until stop
#   kube.sh stop         stop the API server of this checkout, if it runs; another one is never touched
#   kube.sh restart      kill it, and start it again at the same address with the same data
#   kube.sh status       print the path and exit 0 if it answers, else exit 1
#   kube.sh env          print a shell line that sets the variable below, for eval
#   kube.sh with CMD...  run a command with the variable set; then stop the API server if it was started for this
#                        and nobody else uses it
#
#   BACKOUT_KUBECONFIG   the path of the admin's kubeconfig. It is not KUBECONFIG, which may lead to a cluster that
#                        somebody needs; to use kubectl: KUBECONFIG=$BACKOUT_KUBECONFIG kubectl ...
#
# The program is .cache/bin/kubelab (make kubelab). It listens on 127.0.0.1 only, at a port of its own for each checkout.
# Its log is in .cache/kube, its data on a RAM disk if there is one with 1 GiB free. It keeps nothing: each start but
# restart makes a new cluster. A test starts the node that its pods run on (deploy/kube).
#
# Calls may run side by side: all but `with` take .cache/kube.lock, `with` holds .cache/kube.users shared.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=$project/.cache
home=$cache/kube
data=$home/data
ram=/dev/shm/backout-kube-$(printf '%s' "$project" | cksum | cut -d' ' -f1)
kubeconfig=$data/kubeconfig
PATH=$cache/bin:$PATH

say() { printf 'kube: %s\n' "$*" >&2; }
die() {
  printf 'kube: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 1
}

# ours prints the pid of this checkout's API server: the pid file alone proves nothing, a pid may have been used again.
ours() {
  local pid
  pid=$(cat "$home/pid" 2>/dev/null) || return 1
  [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] || return 1
  tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF -- "$data" || return 1
  printf '%s' "$pid"
}

# listens reports whether something listens at the address in a kubeconfig.
listens() {
  local host_port='server: "https://([^/:"]+):([0-9]+)"'
  [[ $(cat "$1" 2>/dev/null) =~ $host_port ]] || return 1
  (exec 3<>"/dev/tcp/${BASH_REMATCH[1]}/${BASH_REMATCH[2]}") 2>/dev/null
}

# find_server sets found to the kubeconfig of an API server that answers.
find_server() {
  if [ -n "${BACKOUT_KUBECONFIG:-}" ] && listens "$BACKOUT_KUBECONFIG"; then
    found=$BACKOUT_KUBECONFIG
  elif ours >/dev/null && listens "$kubeconfig"; then
    found=$kubeconfig
  else
    return 1
  fi
}

make_data() {
  local room
  mkdir -p "$home"
  room=$(df --output=avail --block-size=1G /dev/shm 2>/dev/null | tail -n 1 | tr -d ' ')
  if [ "${room:-0}" -ge 1 ] && [ -w /dev/shm ]; then
    mkdir -m 700 "$ram"
    ln -s "$ram" "$data"
  else
    mkdir -m 700 "$data"
  fi
}

# launch starts the program on the data there is.
launch() {
  local pid
  env -u TMPDIR setsid kubelab "$data" </dev/null >"$home/log" 2>&1 8>&- 9>&- &
  pid=$!
  printf '%s\n' "$pid" >"$home/pid"
  for _ in $(seq 1200); do
    if grep -qx ready "$home/log"; then
      found=$kubeconfig
      say "ready, pid $pid, $(sed -n 's/.*server: "\(https[^"]*\)".*/\1/p' "$kubeconfig")"
      return
    fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 8 "$home/log" >&2
  kill "$pid" 2>/dev/null || true
  die "the API server did not start; the lines above are the end of $home/log"
}

start_private() {
  command -v kubelab >/dev/null || die "no API server answers, and kubelab, needed to start one, is missing" "try: make kubelab"
  clean_up
  say "no API server answers: starting one (log in .cache/kube)"
  make_data
  launch
}

clean_up() {
  ! ours >/dev/null || return 0
  rm -rf "$ram" "$data" "$home/pid"
}

# end_private ends the process; its data is kept by etcd's journal whatever the signal.
end_private() {
  local pid
  pid=$(ours) || return 0
  kill -"$1" "$pid"
  for _ in $(seq 100); do
    if ! kill -0 "$pid" 2>/dev/null; then
      say "API server stopped"
      return
    fi
    sleep 0.1
  done
  say "the API server ($pid) did not stop within 10s, killing it"
  kill -KILL "$pid"
}

stop_private() {
  rm -f "$home/keep"
  end_private TERM
  clean_up
}

restart() {
  ours >/dev/null || die "this checkout's API server does not run" "try: deploy/dev/kube.sh start"
  end_private KILL
  launch
}

# locked runs one of the functions above exclusively.
locked() {
  mkdir -p "$cache"
  exec 9>"$cache/kube.lock"
  flock 9
  "$@"
  exec 9>&-
}

start() { find_server || start_private; }

keep() {
  start
  if [ "$found" = "$kubeconfig" ]; then : >"$home/keep"; fi
}

# leave is the end of `with`: the server stays if somebody asked it to, or if another `with` is running.
leave() {
  exec 8>&-
  exec 8>"$cache/kube.users"
  if [ ! -e "$home/keep" ] && flock --nonblock --exclusive 8; then stop_private 2>/dev/null; fi
}

# The command runs in a process group of its own, so that a signal reaches all of it, and no part of it is left behind.
with() {
  local status=0 child
  locked enter
  trap 'locked leave' EXIT
  set -m
  BACKOUT_KUBECONFIG=$found PATH=$PATH "$@" <&0 8>&- 9>&- &
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
  exec 8>"$cache/kube.users"
  flock --shared 8
  start
}

found=
case "${1:-}" in
start)
  locked keep
  printf '%s\n' "$found"
  ;;
stop) locked stop_private ;;
restart) locked restart ;;
status)
  find_server || { say "no API server answers" && exit 1; }
  printf '%s\n' "$found"
  ;;
env)
  find_server || die "no API server answers" "try: deploy/dev/kube.sh start"
  printf 'export BACKOUT_KUBECONFIG=%q\n' "$found"
  ;;
with)
  shift
  [ $# -gt 0 ] || die "with needs a command"
  with "$@"
  ;;
*) die "usage: deploy/dev/kube.sh start | stop | restart | status | env | with COMMAND..." ;;
esac
