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

name=kube what="API server" also=restart
# shellcheck source=deploy/dev/private.sh
. "$(dirname "${BASH_SOURCE[0]}")/private.sh"
home=$cache/kube
data=$home/data
ram=/dev/shm/backout-kube-$id
kubeconfig=$data/kubeconfig

ours() { running "$home/pid" "$data"; }

# listens reports whether something listens at the address in a kubeconfig.
listens() {
  local host_port='server: "https://([^/:"]+):([0-9]+)"'
  [[ $(cat "$1" 2>/dev/null) =~ $host_port ]] || return 1
  (exec 3<>"/dev/tcp/${BASH_REMATCH[1]}/${BASH_REMATCH[2]}") 2>/dev/null
}

find_server() {
  if [ -n "${BACKOUT_KUBECONFIG:-}" ] && listens "$BACKOUT_KUBECONFIG"; then
    address=$BACKOUT_KUBECONFIG
  elif ours >/dev/null && listens "$kubeconfig"; then
    address=$kubeconfig private=yes
  else
    return 1
  fi
  settings=("BACKOUT_KUBECONFIG=$address")
}

# launch starts the program on the data there is.
launch() {
  local pid
  : >"$home/log"
  background "$home/log" env -u TMPDIR setsid kubelab "$data"
  pid=$!
  printf '%s\n' "$pid" >"$home/pid"
  for _ in $(seq 1200); do
    if grep -qx ready "$home/log"; then
      find_server || die "the API server started but does not answer: see $home/log"
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
  mkdir -p "$home"
  make_folder "$data" "$ram"
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
  kill -"$1" "$pid" || true
  if ended "$pid" 10; then
    say "API server stopped"
    return
  fi
  say "the API server ($pid) did not stop within 10s, killing it"
  kill -KILL "$pid" || true
}

stop_private() {
  end_private TERM
  clean_up
}

restart() {
  ours >/dev/null || die "this checkout's API server does not run" "try: deploy/dev/kube.sh start"
  end_private KILL
  launch
}

case "${1:-}" in
restart) locked restart ;;
*) shared "$@" ;;
esac
