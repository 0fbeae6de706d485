#!/usr/bin/env bash
# A PostgreSQL server for the tests and the demo.
#
#   postgres.sh start        make sure that a server answers, and print its address; it stays until stop
#   postgres.sh stop         stop the server of this checkout, if it runs; another server is never touched
#   postgres.sh status       print the address and exit 0 if a server answers, else exit 1
#   postgres.sh env          print shell lines that set the two variables below, for eval
#   postgres.sh with CMD...  run a command with the two variables set; then stop the server if
#                            it was started for this and nobody else uses it
#
#   BACKOUT_POSTGRES_DSN     postgres://USER:PASSWORD@127.0.0.1:PORT/postgres, of a superuser
#   BACKOUT_POSTGRES_SOCKET  the folder of the server's unix socket, which can be mounted into a container
#
# A server that listens at the address in BACKOUT_POSTGRES_DSN is used. Otherwise one is started, with its data, its
# password and its log in .cache/postgres; the data on a RAM disk if there is one with 1 GiB free. It keeps nothing: each start makes a new cluster, and it never waits for the
# disk. As root it runs as nobody, since PostgreSQL refuses to run as root. Socket and port require the password.
#
# Calls may run side by side: start and stop take .cache/postgres.lock, `with` holds .cache/postgres.users shared.
set -euo pipefail

name=postgres what=server
# shellcheck source=deploy/dev/private.sh
. "$(dirname "${BASH_SOURCE[0]}")/private.sh"
home=$cache/postgres
data=$home/data
ram=/dev/shm/backout-postgres-$id

# The socket in the folder is called .s.PGSQL.PORT, and a socket's path ends at 107 bytes.
socket=$home/run
if [ ${#socket} -gt 90 ]; then socket=${TMPDIR:-/tmp}/backout-postgres-$id; fi

# as_server is what runs a program as the user that the server runs as, in the server's folder. That user may read below
# folders that only root can enter, so that the checkout may lie anywhere.
as_server=(env --chdir="$data")
if [ "$(id -u)" = 0 ]; then
  as_server+=(setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs
    --bounding-set=-all,+dac_read_search --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search)
fi

ours() { running "$data/postmaster.pid" "$data"; }

# given reports whether a server listens at the address in the environment, which may be ours.
given() {
  local host_port='@([^/:@]+):([0-9]+)/'
  [[ ${BACKOUT_POSTGRES_DSN:-} =~ $host_port ]] || return 1
  (exec 3<>"/dev/tcp/${BASH_REMATCH[1]}/${BASH_REMATCH[2]}") 2>/dev/null
}

find_server() {
  local port folder
  if given; then
    address=$BACKOUT_POSTGRES_DSN folder=${BACKOUT_POSTGRES_SOCKET:-}
  elif ours >/dev/null && port=$(cat "$home/port" 2>/dev/null) && pg_isready -q -t 10 -h "$socket" -p "$port"; then
    address=postgres://postgres:$(cat "$home/password")@127.0.0.1:$port/postgres folder=$socket
  else
    return 1
  fi
  if [ "$folder" = "$socket" ]; then private=yes; fi
  settings=("BACKOUT_POSTGRES_DSN=$address" "BACKOUT_POSTGRES_SOCKET=$folder")
}

# configure writes what differs from the defaults. Nothing here outlives its tests, so nothing waits for the disk.
configure() {
  cat >>"$data/postgresql.conf" <<END
listen_addresses = '127.0.0.1'
unix_socket_directories = '$socket'
max_connections = 200
shared_buffers = 32MB
fsync = off
full_page_writes = off
jit = off
timezone = 'GMT'
log_timezone = 'GMT'
log_line_prefix = '%m [%p] %q%u@%d '
END
}

start_private() {
  local program password
  for program in initdb postgres pg_isready psql; do
    command -v "$program" >/dev/null || die "no PostgreSQL answers, and $program, needed to start one, is missing" \
      "try: deploy/dev/tools.sh (Debian), or start a server and set BACKOUT_POSTGRES_DSN and BACKOUT_POSTGRES_SOCKET."
  done
  clean_up
  say "no server answers: starting one (data in .cache/postgres)"
  mkdir -p "$home" "$socket"
  chmod 755 "$home" "$socket"
  password=$(head -c 18 /dev/urandom | base64 | tr -d '+/=')
  (umask 077 && printf '%s\n' "$password" >"$home/password" && : >"$home/server.log")
  make_folder "$data" "$ram" # a database is 300 files, which a disk's file system makes and removes slowly
  if [ "$(id -u)" = 0 ]; then chown 65534:65534 "$data" "$socket"; fi
  # Root opens the password file and the log; the server's user inherits them.
  if ! "${as_server[@]}" initdb --pgdata="$data" --username=postgres --auth=scram-sha-256 --pwfile=/dev/stdin \
    --no-locale --encoding=UTF8 --no-sync <"$home/password" >"$home/server.log" 2>&1; then
    tail -n 8 "$home/server.log" >&2
    die "cannot create the cluster; the lines above are the end of $home/server.log"
  fi
  configure
  listen
}

# listen starts the server at a port that is free. Another process may take it in between: then the next one is tried.
listen() {
  local port pid
  for _ in $(seq 20); do
    port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000)) # below the kernel's ephemeral ports
    background "$home/server.log" "${as_server[@]}" setsid postgres -D "$data" -p "$port"
    pid=$!
    for _ in $(seq 300); do
      if pg_isready -q -t 5 -h "$socket" -p "$port"; then
        printf '%s\n' "$port" >"$home/port"
        find_server || die "the server started but does not answer: see $home/server.log"
        say "ready, pid $(ours), port $port, socket in $socket"
        return
      fi
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill "$pid" 2>/dev/null || true
    wait "$pid" || true
    tail -n 20 "$home/server.log" | grep -q 'Address already in use' || break
  done
  tail -n 8 "$home/server.log" >&2
  die "the server did not start; the lines above are the end of $home/server.log"
}

# clean_up removes what a stopped server leaves.
clean_up() {
  ! ours >/dev/null || return 0
  rm -rf "$ram" "$data" "$socket" "$home/port" "$home/password"
}

stop_private() {
  local pid
  if ! pid=$(ours); then
    clean_up
    return 0
  fi
  kill -INT "$pid" || true # fast shutdown: sessions are ended
  if ! ended "$pid" 30; then
    say "the server ($pid) did not stop within 30s, stopping it immediately"
    kill -QUIT "$pid" || true
    ended "$pid" 10 || true
  fi
  clean_up
  say "server stopped"
}

shared "$@"
