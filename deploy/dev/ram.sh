#!/usr/bin/env bash
# ram.sh COMMAND...: runs a command whose temporary files, and so the tests' databases, are on a RAM disk, if the
# machine has one with 4 GiB free. The tests that crash backout kill its process, never the machine's power, so
# they prove the same there. Files that the command leaves are removed.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/private.sh"
has_ram 4 || exec "$@"
dir=$(mktemp -d /dev/shm/b.XXXXXX) # short: a socket's path ends at 107 bytes
trap 'rm -rf "$dir"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
TMPDIR=$dir "$@"
