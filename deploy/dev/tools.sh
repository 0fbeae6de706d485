#!/usr/bin/env bash
# Fetches the programs that the tests and the demo run with backout, and links them into .cache/ of this checkout: Debian's Docker
# engine, docker-compose, Prometheus with promtool, Alertmanager with amtool, PostgreSQL, Chromium, the mail server
# aiosmtpd, mandoc, zsh and fish, and the Python that checks an exported audit log. An Unleash server and its Node.js come from npm, as
# deploy/dev/unleash/package-lock.json pins them.
#
# Debian's packages are downloaded and unpacked, never installed: no maintainer script runs, so no service is enabled or
# started. A package that the machine already has installed is used as it is. apt's lists are fetched too, so it does not
# matter whether `apt-get update` was ever run. What was fetched is kept for all checkouts of this user (kept.sh).
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=$project/.cache
bin=$cache/bin
debian=$cache/debian # a link to the folder that is kept
root=$debian/root
unleash=$cache/unleash # likewise
pins=$project/deploy/dev/unleash
# shellcheck source=deploy/dev/kept.sh
. "$project/deploy/dev/kept.sh"

# One line per tool: its command, its package, its path there.
tools='docker                  docker.io               /usr/bin/docker
docker-compose          docker-compose          /usr/bin/docker-compose
prometheus              prometheus              /usr/bin/prometheus
promtool                prometheus              /usr/bin/promtool
prometheus-alertmanager prometheus-alertmanager /usr/bin/prometheus-alertmanager
alertmanager            prometheus-alertmanager /usr/bin/prometheus-alertmanager
amtool                  prometheus-alertmanager /usr/bin/amtool
chromium                chromium-headless-shell /usr/lib/chromium/chromium-headless-shell
aiosmtpd                python3-aiosmtpd        /usr/bin/aiosmtpd
mandoc                  mandoc                  /usr/bin/mandoc
zsh                     zsh-static              /bin/zsh-static
fish                    fish                    /usr/bin/fish
python3                 python3                 /usr/bin/python3'
# PostgreSQL's are in a folder that is named after its version.
database='initdb postgres pg_isready pg_dump pg_restore psql'

# Below, look only for what the machine has, not for what an earlier run fetched.
PATH=$(printf '%s' "$PATH" | tr ':' '\n' | grep -vxF "$bin" | paste -sd:)

# iptables and iproute2 are the engine's: container DNS and the engine's own bridge.
packages=(docker.io docker-compose prometheus prometheus-alertmanager postgresql iptables iproute2 chromium-headless-shell fonts-dejavu-core python3 python3-aiosmtpd mandoc zsh-static zsh-common fish)
# The race detector needs a C compiler, the Go module proxy the certificates of the authorities.
command -v "${CC:-gcc}" >/dev/null || packages+=(gcc libc6-dev)
[ -e /etc/ssl/certs/ca-certificates.crt ] || packages+=(ca-certificates)
command -v npm >/dev/null || packages+=(npm)

# Never unpacked: a second C library next to the machine's own loader breaks every program, nobody opens the web
# pages of Prometheus here, PostgreSQL compiles no query and needs no locale but C, and one family of fonts is enough.
never='^(libc6|libc-bin|libgcc-s1|gcc-[0-9]+-base|libjs-.*|fonts-([^d]|d[^e]).*|adduser|init-system-helpers|libllvm.*|locales|sphinx-.*)$'

say() { printf 'tools: %s\n' "$*" >&2; }
die() {
  printf 'tools: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '  %s\n' "$line" >&2; done
  exit 1
}

# The stamp changes with this file, with its place and with the Debian release, so that a change in any of them triggers a new check.
stamp() {
  printf '%s\n' "$project"
  cat "${BASH_SOURCE[0]}" "$pins"/package-lock.json | cksum
  wanted
}

# wanted says what of Debian's is fetched: its release, the packages, and those of them that the machine has.
wanted() {
  cat /etc/debian_version 2>/dev/null || true
  printf '%s %s\n' "${packages[*]}" "$never"
  dpkg-query -W -f='${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true
}

on_debian() {
  grep -q '^ID=debian$' /etc/os-release 2>/dev/null && command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null
}

# Only on Debian are tools fetched; elsewhere they must be installed.
check_path() {
  local missing=() tool
  for tool in docker docker-compose prometheus promtool amtool chromium aiosmtpd mandoc zsh fish python3 gcc npm $database; do
    command -v "$tool" >/dev/null || missing+=("$tool")
  done
  command -v prometheus-alertmanager >/dev/null || command -v alertmanager >/dev/null || missing+=(alertmanager)
  if [ ${#missing[@]} -gt 0 ]; then
    die "this is not Debian, and these programs are not in PATH: ${missing[*]}" \
      "try: install them (docker-compose 1.29, Prometheus 2.42 or later, Alertmanager 0.25 or later, PostgreSQL 15 or later with" \
      "its programs in PATH, Chromium, aiosmtpd, mandoc, zsh, fish, Python 3, npm, and a Docker engine that answers at DOCKER_HOST), or run this on Debian 12, where they are fetched."
  fi
  if ! command -v prometheus-alertmanager >/dev/null; then
    ln -sf "$(command -v alertmanager)" "$bin/prometheus-alertmanager"
  fi
}

apt() {
  apt-get -q -y \
    -o Dir::State::lists="$next/lists" -o Dir::Cache="$next/cache" -o Dir::Cache::archives="$next/archives" \
    -o Dir::Log="$next/log" -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)" \
    -o Acquire::Languages=none -o Acquire::Retries=3 \
    -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::IndexTargets::deb::CNF::DefaultEnabled=false \
    -o APT::Update::Post-Invoke::= -o APT::Install-Recommends=false "$@"
}

# fetch downloads the packages that are not installed, with what they need, and unpacks them into $1/root.
fetch() {
  local next=$1 log=$cache/apt.log deb name
  mkdir -p "$next"/{lists,cache,archives}/partial "$next"/{log,root}
  say "fetching Debian's ${packages[*]} (unpacked in $store, not installed)"
  # A source that is unreachable matters only if it has the packages: then the download fails.
  apt update >"$log" 2>&1 || say "apt-get update had errors, continuing ($log)"
  if ! apt install --download-only "${packages[@]}" >>"$log" 2>&1; then
    tail -n 12 "$log" >&2
    die "cannot download the packages; apt's full output is in $log" \
      "try: check that this machine reaches its Debian mirror (/etc/apt/sources.list, proxy settings), then run it again."
  fi
  for deb in "$next"/archives/*.deb; do
    [ -e "$deb" ] || break # all of them are installed already
    name=$(basename "$deb")
    name=${name%%_*}
    if [[ $name =~ $never ]]; then continue; fi
    dpkg-deb -x "$deb" "$next/root"
  done
  rm -rf "$next"/{lists,cache,archives,log}
}

# link makes $1 a link to the folder that is kept. An older checkout has a folder there, and programs may run from it.
link() {
  if [ -d "$1" ] && [ ! -L "$1" ]; then mv "$1" "$1.old"; fi
  ln -sfn "$kept" "$1"
}

libraries() {
  local dir found=
  for dir in "$root"/usr/lib/*-linux-gnu* "$root"/lib/*-linux-gnu* "$root"/usr/lib/*-linux-gnu*/pulseaudio; do
    if [ -d "$dir" ]; then found+=${found:+:}$dir; fi
  done
  printf '%s' "$found"
}

# wrap writes $bin/NAME, which runs the unpacked program with the unpacked libraries; a program that is installed gets a
# link. The third and fourth argument go before and after the program in the command line.
wrap() {
  local name=$1 path=$2 before=${3:-} after=${4:-}
  if [ ! -e "$root$path" ]; then
    [ -x "$path" ] || die "$path is missing, although its package should have it"
    ln -sf "$path" "$bin/$name"
    return
  fi
  cat >"$bin/$name.next" <<END
#!/bin/sh
# Written by deploy/dev/tools.sh.
LD_LIBRARY_PATH='$(libraries)'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export LD_LIBRARY_PATH
exec $before'$root$path' $after"\$@"
END
  chmod +x "$bin/$name.next"
  mv "$bin/$name.next" "$bin/$name"
}

# seen_share begins a command line whose program, it alone, sees the unpacked /usr/share in its place.
# shellcheck disable=SC2016
seen_share='unshare --mount --propagation private sh -c '"'"'{
  mount -t overlay overlay -o "lowerdir=$0/usr/share:/usr/share" /usr/share 2>/dev/null || mount --bind "$0/usr/share" /usr/share
} && exec "$@"'"'"' '

wrap_all() {
  local name path python=/usr/bin/python3
  [ -x "$python" ] || python=$root/usr/bin/python3
  while read -r name _ path; do
    case $name in
    docker-compose)
      wrap "$name" "$path" "env -u PYTHONHOME PYTHONPATH='$root/usr/lib/python3/dist-packages' '$python' -W ignore "
      ;;
    aiosmtpd)
      # What handles its mail is a class that PYTHONPATH leads to.
      wrap "$name" "$path" "env -u PYTHONHOME PYTHONPATH='$root/usr/lib/python3/dist-packages'\${PYTHONPATH:+:\$PYTHONPATH} '$python' -W ignore "
      ;;
    prometheus-alertmanager | alertmanager | zsh | fish)
      # Debian's read their templates and functions from /usr/share, and nowhere else: they alone see the unpacked ones there.
      wrap "$name" "$path" "$seen_share'$root' "
      ;;
    chromium) wrap "$name" "$path" "env FONTCONFIG_FILE='$cache/fonts.conf' " ;;
    *) wrap "$name" "$path" ;;
    esac
  done <<<"$tools"
  # As the packages' maintainer scripts would: without it, each start of docker-compose 1.29 compiles itself, for a second.
  if [ -d "$root/usr/lib/python3/dist-packages" ]; then "$bin/python3" -m compileall -q "$root/usr/lib/python3/dist-packages" >/dev/null; fi
  path=$(programs_of_database)
  for name in $database; do wrap "$name" "$path/$name"; done
  if [ -e "$root/usr/bin/gcc" ]; then wrap_gcc; else rm -f "$bin/gcc"; fi
  if [ -e "$root/usr/bin/npm" ]; then wrap_npm; else rm -f "$bin/npm"; fi
}

# wrap_npm: Debian's Node.js has its modules in /usr/share, and nowhere else.
wrap_npm() {
  wrap npm /usr/share/nodejs/npm/bin/npm-cli.js "$seen_share'$root' '$root/usr/bin/node' "
}

# fetch_unleash installs the pinned Unleash server in $1. No package's own script runs.
fetch_unleash() {
  say "fetching unleash-server from npm"
  cp "$pins"/package*.json "$1/"
  if ! (cd "$1" && PATH=$bin:$PATH npm ci --omit=dev --ignore-scripts --no-audit --no-fund --cache="$1/npm") >"$cache/npm.log" 2>&1; then
    tail -n 12 "$cache/npm.log" >&2
    die "cannot fetch unleash-server; npm's full output is in $cache/npm.log" \
      "try: check that this machine reaches its npm registry (npm config get registry, proxy settings), then run it again."
  fi
  rm -rf "$1/npm"
}

wrap_unleash() {
  cat >"$bin/unleash-server" <<END
#!/bin/sh
# Written by deploy/dev/tools.sh.
exec '$unleash/node_modules/.bin/node' '$unleash/node_modules/unleash-server/dist/server.js'
END
  chmod +x "$bin/unleash-server"
}

# programs_of_database prints the folder of the newest PostgreSQL that is unpacked or installed as a whole. The unpacked
# one finds its files relative to its program.
programs_of_database() {
  local dir found=
  for dir in {"$root",}/usr/lib/postgresql/*/bin; do
    if [ -x "$dir/postgres" ] && [ -x "$dir/pg_dump" ]; then found+=${dir#"$root"}$'\n'; fi
  done
  [ -n "$found" ] || die "PostgreSQL's programs are neither installed nor unpacked, although its packages should have them"
  sort -V <<<"${found%$'\n'}" | tail -n 1
}

# wrap_gcc makes $root the compiler's system root. The C library in it is the machine's own, by links.
wrap_gcc() {
  local dir file
  for dir in "$root"/usr/lib/*-linux-gnu*; do
    dir=/lib/$(basename "$dir")
    mkdir -p "$root$dir"
    for file in "$dir"/lib{c,m,mvec,dl,rt,pthread,gcc_s}.so.*; do
      if [ -e "$file" ]; then ln -sf "$file" "$root$file"; fi
    done
  done
  for file in /lib*/ld-linux-*.so.*; do
    [ -e "$file" ] || continue
    mkdir -p "$root$(dirname "$file")"
    ln -sf "$file" "$root$file"
  done
  wrap gcc /usr/bin/gcc "env PATH='$root/usr/bin':\"\$PATH\" " "--sysroot='$root' "
}

# engine_env is read by engine.sh: where dockerd and its helpers are.
write_engine_env() {
  local libs
  libs=$(libraries)
  if [ -e "$root/usr/sbin/iptables-nft" ]; then
    # Made by update-alternatives where the package is installed.
    ln -sf iptables-nft "$root/usr/sbin/iptables"
    ln -sf ip6tables-nft "$root/usr/sbin/ip6tables"
  fi
  cat >"$cache/engine.env" <<END
PATH='$root/usr/sbin:$root/usr/bin:$root/sbin:$root/bin':\$PATH:/usr/sbin:/sbin
LD_LIBRARY_PATH='$libs'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
XTABLES_LIBDIR='${libs%%:*}/xtables'
export PATH LD_LIBRARY_PATH
[ ! -d "\$XTABLES_LIBDIR" ] || export XTABLES_LIBDIR
END
}

# write_fonts is read by Chromium: without a font, the machine's or the unpacked one, it shows no text.
write_fonts() {
  cat >"$cache/fonts.conf" <<END
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>/usr/share/fonts</dir><dir>$root/usr/share/fonts</dir><cachedir>$cache/fontcache</cachedir></fontconfig>
END
}

up_to_date() { [ -d "$debian/root" ] && [ -d "$unleash/node_modules" ] && [ "$(cat "$cache/tools.stamp" 2>/dev/null)" = "$(stamp)" ]; }

# What is used is not removed from what is kept.
up_to_date && exec touch "$debian" "$unleash"
mkdir -p "$bin"
exec 9>"$cache/tools.lock"
flock 9
up_to_date && exit 0
if on_debian; then
  keep debian "$(wanted)" fetch
  link "$debian"
  root=$kept/root
  wrap_all
  write_engine_env
  write_fonts
else
  mkdir -p "$debian/root"
  check_path
fi
keep unleash "$(cat "$pins"/package*.json)" fetch_unleash
link "$unleash"
unleash=$kept
wrap_unleash
stamp >"$cache/tools.stamp"
say "ready in .cache/bin"
