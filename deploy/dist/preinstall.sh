#!/bin/sh
# Before the files are unpacked: some of them belong to this user's group.
set -e
getent group backout >/dev/null || groupadd --system backout
getent passwd backout >/dev/null ||
  useradd --system --gid backout --home-dir /var/lib/backout --no-create-home --shell /usr/sbin/nologin backout
