# Read by the scripts of this folder that start servers of this checkout (engine.sh, postgres.sh, kube.sh, swarm.sh): what
# they do alike. Each sets $name, its own name, and $what, what it starts.
# shellcheck shell=bash
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=$project/.cache
id=$(printf '%s' "$project" | cksum | cut -d' ' -f1)
PATH=$cache/bin:$PATH

say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() {
  say "$1"
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 1
}

# running FILE ARGUMENT prints the pid at the top of a file if that process has the argument: the file alone proves
# nothing, a pid may have been used again.
running() {
  local pid
  pid=$(head -n 1 "$1" 2>/dev/null) && [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] || return 1
  tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qxF -- "$2" || return 1
  printf '%s' "$pid"
}

# ended PID SECONDS waits for the end of a process.
ended() {
  for _ in $(seq $(($2 * 10))); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  ! kill -0 "$1" 2>/dev/null
}

# has_ram GIB reports whether there is a RAM disk with that much free.
has_ram() {
  local room
  room=$(df --output=avail --block-size=1G /dev/shm 2>/dev/null | tail -n 1 | tr -d ' ')
  [ "${room:-0}" -ge "$1" ] && [ -w /dev/shm ]
}

# make_folder DATA RAM makes the folder DATA, on a RAM disk as RAM if there is one with 1 GiB free.
make_folder() {
  if has_ram 1; then
    mkdir -m 700 "$2"
    ln -s "$2" "$1"
  else
    mkdir -m 700 "$1"
  fi
}

# docker_path puts Docker's programs on PATH, as tools.sh has found or fetched them, behind the wrappers in .cache/bin.
docker_path() {
  if [ -e "$cache/engine.env" ]; then
    # shellcheck disable=SC1091
    . "$cache/engine.env"
    PATH=$cache/bin:$PATH
  fi
}

# free_network FIRST prints the first two numbers of a /16 that no route of the machine lies in, of 50 from 10.FIRST.
free_network() {
  local n routes
  routes=$(ip -4 route show table all)
  for n in $(seq 0 49); do
    n=$(($1 + (id + n) % 50))
    if ! grep -qE "(^|[^0-9.])10\.$n\." <<<"$routes"; then
      printf '10.%d' "$n"
      return
    fi
  done
  die "no free address range between 10.$1.0.0 and 10.$(($1 + 49)).0.0" "try: ip -4 route"
}

# unmount FOLDER... unmounts all that is mounted below the folders.
unmount() {
  local path
  while read -r path; do umount "$path" 2>/dev/null || umount -l "$path" || true; done < <(
    cut -d' ' -f5 /proc/self/mountinfo | grep -F "${@/#/-e}" | sort -r)
}

# forget_docker removes the folders that dockerd and its shims make whatever the exec-root is; another engine's are not empty.
forget_docker() {
  rmdir /run/containerd/s /run/containerd 2>/dev/null || true
  if [ ! -e /run/docker.sock ]; then rmdir /run/docker/plugins /run/docker 2>/dev/null || true; fi
}

# background LOG COMMAND... starts a program that outlives the script. Nothing of it holds the script's output, whose end
# a pipe would wait for, or its locks: the subshell is the program itself.
background() {
  local log=$1
  shift
  (exec "$@" </dev/null >>"$log" 2>&1 8>&- 9>&-) &
}

# supervise COMMAND... runs a command and exits with its status. The command runs in a process group of its own, so that
# a signal reaches all of it, and no part of it is left behind.
supervise() {
  local status child
  set -m
  env "$@" <&0 8>&- 9>&- &
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

# locked runs a function exclusively, by .cache/NAME.lock.
locked() {
  mkdir -p "$cache"
  exec 9>"$cache/$name.lock"
  flock 9
  "$@"
  exec 9>&-
}

# What follows is for a server that commands share. The script has find_server, which sets $address, $settings (the
# variables of a command that uses the server) and $private (not empty: it is this checkout's own), start_private, which
# does that too, and stop_private.
start() { find_server || start_private; }

keep() {
  start
  if [ -n "$private" ]; then : >"$home/keep"; fi
}

unkeep() {
  rm -f "$home/keep"
  stop_private
}

enter() {
  exec 8>"$cache/$name.users"
  flock --shared 8
  start
}

# leave is the end of `with`: the server stays if somebody asked it to, or if another `with` is running.
leave() {
  exec 8>&-
  exec 8>"$cache/$name.users"
  if [ ! -e "$home/keep" ] && flock --nonblock --exclusive 8; then stop_private 2>/dev/null; fi
}

# shared COMMAND... carries out what is asked of the script.
shared() {
  address='' settings=() private=''
  case "${1:-}" in
  start)
    locked keep
    printf '%s\n' "$address"
    ;;
  stop) locked unkeep ;;
  status)
    find_server || { say "no $what answers" && exit 1; }
    printf '%s\n' "$address"
    ;;
  env)
    find_server || die "no $what answers" "try: deploy/dev/$name.sh start"
    printf 'export %q\n' "${settings[@]}" "PATH=$PATH"
    ;;
  with)
    shift
    [ $# -gt 0 ] || die "with needs a command"
    locked enter
    trap 'locked leave' EXIT
    supervise "${settings[@]}" "$@"
    ;;
  *) die "usage: deploy/dev/$name.sh start | stop | ${also:+$also | }status | env | with COMMAND..." ;;
  esac
}
