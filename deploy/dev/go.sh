#!/usr/bin/env bash
# The Go side of the tools.
#
#   go.sh check                             is the Go toolchain there, and new enough for go.mod?
#   go.sh install NAME PACKAGE@VERSION ...  make .cache/bin/NAME a link to the built program, and build it unless it is
#                                           kept (kept.sh); what follows the version goes to `go install`
#   go.sh build NAME MODULE@VERSION PACKAGE ...
#                                           the same for a program whose go.mod `go install` refuses (it has exclude or
#                                           replace lines): it is built in its own module's folder
#   go.sh folder NAME FOLDER                the same for a module of this checkout; a change in its files builds it again
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin=$project/.cache/bin
# shellcheck source=deploy/dev/kept.sh
. "$project/deploy/dev/kept.sh"

say() { printf 'go: %s\n' "$*" >&2; }

check() {
  local have want
  want=$(sed -n 's/^go //p' "$project/go.mod")
  if ! command -v go >/dev/null; then
    say "Go is not in PATH; backout needs Go $want or later"
    say "try: https://go.dev/doc/install, then PATH=\$PATH:/usr/local/go/bin"
    exit 1
  fi
  # From a folder without a go.mod, so that a toolchain that is too old still answers.
  have=$(cd / && GOTOOLCHAIN=local go env GOVERSION)
  have=${have#go}
  if [ "$(printf '%s\n%s\n' "$want" "${have%% *}" | sort -V | head -n 1)" != "$want" ]; then
    # With GOTOOLCHAIN=auto, its default, the go command fetches the one that go.mod names.
    if [ "$(cd / && go env GOTOOLCHAIN)" != local ] && (cd "$project" && go version >/dev/null 2>&1); then return; fi
    say "Go $have is too old: backout needs $want or later (the go line of go.mod)"
    say "try: https://go.dev/doc/install, or GOTOOLCHAIN=auto, so that Go fetches a newer one"
    exit 1
  fi
}

# All are called with the variables of install_tool, the first two outside of the project, so that its go.mod does not
# affect a tool's dependencies.
by_install() (cd / && GOBIN=$out GOFLAGS=-buildvcs=false go install -ldflags='-s -w' "${flags[@]}" "$package")
by_build() (
  cd / && dir=$(GOFLAGS='' go mod download -json "$package" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p') && [ -n "$dir" ] && cd "$dir" &&
    GOWORK=off GOFLAGS=-mod=readonly\ -buildvcs=false go build -trimpath -o "$out/" -ldflags='-s -w' "${flags[@]}"
)
by_folder() (cd "$project/$package" && GOWORK=off GOFLAGS=-mod=readonly\ -buildvcs=false CGO_ENABLED=0 go build -trimpath -o "$out/" -ldflags='-s -w' .)

make_tool() {
  local out=$1 log=$project/.cache/$name.log
  say "building $name ($package), a few minutes the first time"
  if ! "$how" >"$log" 2>&1; then
    tail -n 12 "$log" >&2
    say "cannot build $package; the go command's full output is in $log"
    exit 1
  fi
  [ -e "$out/$name" ] || mv "$out"/* "$out/$name"
}

install_tool() {
  local how=$1 name=$2 package=$3 flags key
  shift 3
  flags=("$@")
  key="$package $* $(go env GOVERSION)"
  if [ "$how" = by_folder ]; then key="$key $(cd "$project/$package" && cat ./*.go go.mod go.sum | cksum)"; fi
  mkdir -p "$bin"
  keep "$name" "$key" make_tool
  ln -sfn "$kept/$name" "$bin/$name"
}

case "${1:-}" in
check) check ;;
install)
  shift
  install_tool by_install "$@"
  ;;
build)
  shift
  install_tool by_build "$@"
  ;;
folder)
  shift
  install_tool by_folder "$@"
  ;;
*)
  say "usage: deploy/dev/go.sh check | install NAME PACKAGE@VERSION [FLAG...] | build NAME MODULE@VERSION [FLAG...] PACKAGE | folder NAME FOLDER"
  exit 2
  ;;
esac
