#!/usr/bin/env bash
# debian.sh image ARCH   unpacks the Debian part of the image: a shell with the usual commands, for the scripts of
#                        schema_rollback, and PostgreSQL's client
# debian.sh chroot       installs a small Debian with systemd and rpm, in which the tests install the packages
#
# Both print their folder below .cache/dist. They are fetched once, verified by Debian's keys; nothing on this machine is
# installed. The newest packages come with the next run after `rm -r .cache/dist`.
set -euo pipefail

# pg_dump must be as new as the server, or newer, which is why this is not the release of the machine that builds.
release=trixie
packages=(base-files dash coreutils grep sed postgresql-client-17)
# postgresql-client-common has wrappers in Perl around the programs that we call directly.
never='^(perl|libperl|libgdbm|libdb5|libsasl2-modules|netbase|sensible-utils|postgresql-client-common|openssl-provider-legacy)'
keys=/usr/share/keyrings/debian-archive-keyring.gpg

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=$project/.cache/dist

say() { printf 'dist: %s\n' "$*" >&2; }

# logged runs a command whose output nobody needs unless it fails.
logged() {
  if "$@" >>"$log" 2>&1; then return; fi
  tail -n 12 "$log" >&2
  say "$1 failed; the full output is in $log"
  exit 1
}

# mirrors prints the sources of this machine as `MIRROR RELEASE`, with the release that we want.
mirrors() {
  local codename
  codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>>"$log" |
    sed -n "s|^\(.*\) $codename\(-security\)\? main\$|\1 $release\2|p" | sort -u | grep . && return
  say "no Debian mirror in apt's sources"
  say "try: run this on Debian 12 or later, whose sources name its own release ($codename)"
  exit 1
}

# fetch downloads packages of an architecture, and what they need, into $next/archives.
fetch() {
  local arch=$1 options
  shift
  mkdir -p "$next"/{lists,cache,archives}/partial
  mirrors | sed "s|.*|deb [signed-by=$keys] & main|" >"$next/sources.list"
  options=(-q -y -o Dir::Etc::sourcelist="$next/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::status=/dev/null
    -o Dir::State::lists="$next/lists" -o Dir::Cache="$next/cache" -o Dir::Cache::archives="$next/archives"
    -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o Debug::NoLocking=1 -o APT::Sandbox::User="$(id -un)"
    -o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
    -o APT::Update::Post-Invoke::= -o APT::Install-Recommends=false)
  logged apt-get "${options[@]}" update
  logged apt-get "${options[@]}" install --download-only "$@"
}

image() {
  local deb name
  say "fetching Debian's ${packages[*]} for $1 into .cache/dist"
  fetch "$1" "${packages[@]}"
  mkdir -p "$next/root/var/lib/dpkg/status.d"
  # base-files is first: it has the links from /bin to /usr/bin.
  for deb in "$next"/archives/base-files_*.deb "$next"/archives/*.deb; do
    name=$(dpkg-deb -f "$deb" Package)
    if [[ $name =~ $never ]]; then continue; fi
    dpkg-deb -x "$deb" "$next/root"
    # Where scanners look for what is installed in an image without dpkg.
    dpkg-deb -f "$deb" >"$next/root/var/lib/dpkg/status.d/$name"
  done
  cd "$next/root"
  find usr/share/doc -mindepth 1 -not -name copyright -not -type d -delete
  rm -rf usr/share/{man,info,locale,lintian,bash-completion,zsh,bug} usr/lib/*-linux-gnu*/gconv etc/init.d
  find usr/share/doc -depth -type d -empty -delete
}

chroot() {
  local mirror
  say "installing a small Debian with systemd into .cache/dist"
  fetch "$(dpkg --print-architecture)" debootstrap
  dpkg-deb -x "$next"/archives/debootstrap_*.deb "$next/tool"
  mirror=$(mirrors | sed -n "s| $release\$||p" | head -n 1)
  logged env DEBOOTSTRAP_DIR="$next/tool/usr/share/debootstrap" "$next/tool/usr/sbin/debootstrap" --variant=minbase \
    --include=systemd,procps,rpm --keyring="$keys" "$release" "$next/root" "$mirror"
  rm -rf "$next/tool" "$next/root/var/cache/apt/archives"/*.deb
}

case "$*" in
chroot | "image amd64" | "image arm64") ;;
*) echo 'usage: deploy/dist/debian.sh image amd64|arm64 | chroot' >&2 && exit 2 ;;
esac
tree=$*
tree=$cache/${tree/ /-}
next=$tree.next
log=$tree.log
stamp=$(cksum <"${BASH_SOURCE[0]}")
mkdir -p "$cache"
exec 9>"$tree.lock"
flock 9
if [ "$(cat "$tree/stamp" 2>/dev/null)" != "$stamp" ]; then
  rm -rf "$next"
  : >"$log"
  ("$@")
  rm -rf "$next"/{lists,cache,archives,sources.list} "$tree"
  printf '%s\n' "$stamp" >"$next/stamp"
  mv "$next" "$tree"
fi
printf '%s\n' "$tree/root"
