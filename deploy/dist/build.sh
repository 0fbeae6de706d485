#!/usr/bin/env bash
# build.sh FOLDER: writes what a release consists of into FOLDER: programs, packages, images, SBOMs, SHA-256 sums. The same
# commit gives the same bytes, wherever it is built: every time is the commit's, and no path of this machine gets in.
# VERSION and COMPOSE (the compose tool's MODULE@VERSION) come from the Makefile; nfpm and cyclonedx-gomod are in PATH.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
[ $# = 1 ] || { echo "usage: deploy/dist/build.sh FOLDER" >&2 && exit 2; }
: "${VERSION:?}" "${REVISION:?}" "${COMPOSE:?}" "${SOURCE_DATE_EPOCH:?}"
rm -rf "$1"
mkdir -p "$1"
dist=$(cd "$1" && pwd)
cd "$project"
umask 022
export CGO_ENABLED=0 SOURCE_DATE_EPOCH TZ=UTC LC_ALL=C

say() { printf 'dist: %s\n' "$*" >&2; }

# A version that both dpkg and rpm sort: v1.2.0-rc.1 is 1.2.0~rc.1, five commits after it 1.2.0~rc.1+5.g0123456; a commit
# without a tag before it is older than all of them.
case $VERSION in
v[0-9]*) PACKAGE_VERSION=$(sed -E 's/^v//; s/-dirty$/+dirty/; s/-([0-9]+)-(g[0-9a-f]+)/+\1.\2/; s/-/~/g' <<<"$VERSION") ;;
*) PACKAGE_VERSION=0.0.0~git$(date -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).${VERSION//-/+} ;;
esac
export PACKAGE_VERSION
name=backout_${PACKAGE_VERSION}_linux

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

info=github.com/prometheus/common/version
module=${COMPOSE%@*}
for ARCH in amd64 arm64; do
  export ARCH
  say "$ARCH: program"
  GOOS=linux GOARCH=$ARCH go build -trimpath -buildvcs=false -o "$dist/${name}_$ARCH" \
    -ldflags "-s -w -buildid= -X $info.Version=$VERSION -X $info.Revision=$REVISION" ./cmd/backout
  cyclonedx-gomod bin -json -noserial -notimestamp -std -version "$VERSION" -output "$dist/${name}_$ARCH.cdx.json" "$dist/${name}_$ARCH" 2>"$stage/sbom.log" ||
    { cat "$stage/sbom.log" >&2 && exit 1; }

  say "$ARCH: packages"
  mkdir "$stage/$ARCH"
  cp "$dist/${name}_$ARCH" "$stage/$ARCH/backout"
  cp LICENSE CHANGELOG.md deploy/backout.service deploy/dist/{acting.conf,replica.conf,backout.yml,nfpm.yaml,*.sh} "$stage/$ARCH/"
  cp alerts/playbook.yaml "$stage/$ARCH/playbook.yaml"
  cp cmd/backout/completion/{backout.bash,_backout,backout.fish} "$stage/$ARCH/"
  go run -ldflags "-X $info.Version=$VERSION" ./cmd/backout --help-man | gzip -9n >"$stage/$ARCH/backout.1.gz"
  touch -d "@$SOURCE_DATE_EPOCH" "$stage/$ARCH"/*
  for kind in deb rpm; do
    (cd "$stage/$ARCH" && nfpm package --config nfpm.yaml --packager $kind --target "$dist/${name}_$ARCH.$kind") >/dev/null
  done

  say "$ARCH: image"
  GOOS=linux GOARCH=$ARCH deploy/dev/go.sh build "docker-compose-$ARCH" "$COMPOSE" "-ldflags=-s -w -X $module/internal.Version=${COMPOSE#*@}" ./cmd
  tree=$(deploy/dist/debian.sh image $ARCH)
  go run ./deploy/dist/image -arch $ARCH -version "$VERSION" -revision "$REVISION" -created "$SOURCE_DATE_EPOCH" -debian "$tree" \
    -program "$dist/${name}_$ARCH" -compose ".cache/bin/docker-compose-$ARCH" -output "$dist/${name}_$ARCH.oci.tar"
done
(cd "$dist" && sha256sum -- * >"$stage/SHA256SUMS" && mv "$stage/SHA256SUMS" .)
say "$(du -sh "$dist" | cut -f1) in $(basename "$dist")/"
